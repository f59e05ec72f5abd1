import { randomUUID } from 'node:crypto';
import { View } from '../../src/gen/jeex/persistence/v1/document_service_pb.js';
import { type Clients, newUser } from '../support/service.ts';
import type { World } from './fault.ts';
import { insist } from './waiting.ts';

/** The document that faults append to. */
export const DOCUMENT = 'soak';

/** A project of a fault's own. */
export interface Scratch {
  readonly projectId: string;
  readonly owner: string;
}

/** An append that may be sent again as it is. */
export interface Append {
  readonly projectId: string;
  readonly documentType: string;
  readonly content: string;
  readonly requestId: string;
}

export const newScratch = async ({ clients, signal }: World): Promise<Scratch> => {
  const owner = await insist(signal, () => newUser(clients));
  const request = { name: 'Soak', language: 'en', requestId: randomUUID() };
  const { project } = await insist(signal, () => clients.projects.createProject(request, { actor: owner }));
  return { projectId: project?.id ?? '', owner };
};

export const newAppend = ({ projectId }: Scratch, content: string = randomUUID()): Append => ({
  projectId,
  documentType: DOCUMENT,
  content,
  requestId: randomUUID(),
});

/** Sends an append once. @returns the version it became */
export const append = async ({ documents }: Clients, { owner }: Scratch, request: Append, signal?: AbortSignal) => {
  const { version } = await documents.appendVersion(request, { actor: owner, ...(signal && { signal }) });
  return version?.version ?? 0;
};

/** What the document of a project holds, from version 1 on. */
export const contentsOf = async ({ clients, signal }: World, { projectId, owner }: Scratch): Promise<string[]> => {
  const contents: string[] = [];
  let pageToken = '';
  do {
    const request = { projectId, documentType: DOCUMENT, view: View.FULL, pageSize: 1000, pageToken };
    const page = await insist(signal, () => clients.documents.listVersions(request, { actor: owner }));
    for (const { version, content } of page.versions) contents[version - 1] = content;
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return contents;
};

/**
 * Holds what a document holds against what was acknowledged: each once, at the version it was told, and nothing else.
 * @param told by version what was acknowledged
 * @returns what is wrong, a line each
 */
export const compare = (stored: readonly string[], told: ReadonlyMap<number, string>): string[] => {
  const broken: string[] = [];
  for (const [version, content] of told) {
    if (stored[version - 1] !== content)
      broken.push(`version ${version}, which was acknowledged, is not as it was written`);
  }
  if (stored.length !== told.size)
    broken.push(`${stored.length} versions are there, and ${told.size} were acknowledged`);
  if (new Set(stored).size !== stored.length) broken.push('an append was applied twice');
  return broken;
};
