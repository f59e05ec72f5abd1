import type { Node } from 'libpg-query';
import { BUILD_APART, NEW_RULE } from './advice.ts';
import { as, type Handlers, qualified, relationName, strings, typeName } from './ast.ts';
import type { Scope } from './scope.ts';

/** What makes something new, on which nothing can be lost; `if not exists` may also find what was there. */
export const CREATES: Handlers<Scope> = {
  CreateStmt: ({ relation, if_not_exists: maybe, partbound }, scope) => {
    if (!maybe) scope.make('relation', relationName(relation));
    if (partbound !== undefined) scope.leaveOpen('data-dependent');
  },
  CreateForeignTableStmt: ({ base }, scope) => {
    if (!base?.if_not_exists) scope.make('relation', relationName(base?.relation));
  },
  CreateTableAsStmt: ({ into, if_not_exists: maybe }, scope) => {
    if (!maybe) scope.make('relation', relationName(into?.rel));
    scope.leaveOpen('data-dependent');
  },
  ViewStmt: ({ view, replace }, scope) => {
    if (replace) scope.leaveOpen('backward-incompatible');
    else scope.make('relation', relationName(view));
  },
  CreateSeqStmt: ({ sequence, if_not_exists: maybe }, scope) => {
    if (!maybe) scope.make('relation', relationName(sequence));
  },
  IndexStmt: (index, scope) => {
    const table = relationName(index.relation);
    const schema = index.relation?.schemaname;
    const name = index.idxname ?? '';
    if (!index.if_not_exists) scope.make('relation', qualified(schema ? [schema, name] : [name]));
    if (scope.isNew('relation', table)) return;
    // An index on an expression fails on a row that the expression fails on.
    if (!index.unique) return scope.leaveOpen('data-dependent');
    const what = `makes the unique index ${name} on ${index.relation?.relname}`;
    scope.find('data-dependent', what, BUILD_APART);
    scope.find('backward-incompatible', what, NEW_RULE);
  },
  CompositeTypeStmt: ({ typevar }, scope) => scope.make('type', relationName(typevar)),
  CreateEnumStmt: ({ typeName: name }, scope) => scope.make('type', qualified(strings(name))),
  CreateRangeStmt: ({ typeName: name }, scope) => scope.make('type', qualified(strings(name))),
  CreateDomainStmt: ({ domainname }, scope) => scope.make('type', qualified(strings(domainname))),
  CreateSchemaStmt: ({ schemaname, if_not_exists: maybe }, scope) => {
    if (schemaname !== undefined && !maybe) scope.make('schema', schemaname);
  },
  CreateFunctionStmt: (made, scope) => {
    const { funcname, parameters, replace } = made;
    // One more with the same name can make a call ambiguous, and a new body can do something else.
    scope.leaveOpen('backward-incompatible');
    const name = qualified(strings(funcname));
    scope.bodies.set(name, { made, text: scope.text });
    if (replace) return;
    scope.make('routine', name);
    scope.make('routine', `${name}(${inputs(parameters)})`);
  },
  CreateTrigStmt: ({ relation }, scope) => {
    if (!scope.isNew('relation', relationName(relation))) scope.leaveOpen('backward-incompatible');
  },
};

/** The types by which a function is told from others of its name. */
export const inputs = (parameters: readonly Node[] | undefined): string =>
  (parameters ?? [])
    .flatMap((node) => {
      const parameter = as('FunctionParameter', node);
      const type = as('TypeName', node) ?? parameter?.argType;
      const isInput = !['FUNC_PARAM_OUT', 'FUNC_PARAM_TABLE'].includes(parameter?.mode ?? '');
      return type !== undefined && isInput ? [typeName(type)] : [];
    })
    .join(',');
