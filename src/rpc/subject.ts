import type { DescMessage, DescMethod, DescService, Message } from '@bufbuild/protobuf';

/** Whom and what a call is about: ids alone, of a message that was checked. */
export interface Subject {
  /** In the order of the request; empty when it is about none. */
  readonly projects: readonly string[];
  /** The users a call of the UserService or about a membership is about; empty when it names none. */
  readonly users: readonly string[];
}

type Fields = Readonly<Record<string, unknown>>;
type Find = (message: Fields) => readonly string[];

const NONE: Find = () => [];

/** The values of a field, in the message or, by a path, in the messages it holds. */
const at = (desc: DescMessage, ...path: readonly string[]): Find => {
  const [name, ...rest] = path;
  const field = desc.fields.find((candidate) => candidate.name === name);
  if (!field) return NONE;
  const inner = rest.length > 0 && field.message ? at(field.message, ...rest) : null;
  if (rest.length > 0 && (inner === null || inner === NONE)) return NONE;
  return (message) => {
    const value = message[field.localName];
    const values = Array.isArray(value) ? value : value === undefined || value === '' ? [] : [value];
    return inner === null ? (values as string[]) : values.flatMap((item) => inner(item as Fields));
  };
};

const firstOf = (...finds: readonly Find[]): Find => finds.find((find) => find !== NONE) ?? NONE;

/** The resource that a request changes, or a response answers. */
const resources = (desc: DescMessage): readonly string[] =>
  desc.fields.filter(({ fieldKind }) => fieldKind === 'message').map(({ name }) => name);

/**
 * Compiles how to read from a method's request what it is about: `project_id`, that of its `cursors` or of the resource it
 * changes; in the ProjectService and the UserService the resource's own id, or the ids of several users.
 */
export const compileSubject = (method: DescMethod): ((request: Message) => Subject) => {
  const { input, parent } = method;
  const own = (service: string, resource: string): Find =>
    parent.name === service ? firstOf(at(input, 'id'), at(input, resource, 'id')) : NONE;
  const projects = firstOf(
    at(input, 'project_id'),
    at(input, 'cursors', 'project_id'),
    own('ProjectService', 'project'),
  );
  const users = firstOf(at(input, 'user_id'), own('UserService', 'user'), ofUsers(parent, at(input, 'ids')));
  return (request) => {
    const fields = request as unknown as Fields;
    return { projects: projects(fields), users: users(fields) };
  };
};

/**
 * Compiles how to complete a subject by what the method's answer says: the project it made or chose, the user it made or
 * found, for requests that name none.
 */
export const compileAnswered = (method: DescMethod): ((subject: Subject, answer: object) => Subject) => {
  const { output, parent } = method;
  const finds = resources(output).map((name) =>
    parent.name === 'ProjectService' && name === 'project' ? at(output, name, 'id') : at(output, name, 'project_id'),
  );
  const projects = firstOf(...finds);
  const users = ofUsers(parent, at(output, 'user', 'id'));
  return (subject, answer) => ({
    projects: subject.projects.length > 0 ? subject.projects : projects(answer as Fields),
    users: subject.users.length > 0 ? subject.users : users(answer as Fields),
  });
};

const ofUsers = (service: DescService, find: Find): Find => (service.name === 'UserService' ? find : NONE);
