import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** The four documents a project grows through, in the order of its steps. */
export const STEPS = ['idea', 'specifications', 'architecture', 'plan'] as const;
export type DocumentType = (typeof STEPS)[number];

/** How many versions of each the sample has. */
const VERSIONS: Readonly<Record<DocumentType, number>> = { idea: 2, specifications: 3, architecture: 3, plan: 2 };

/** The sample's text of one version: the documents of this very service. @throws Error for a version it does not have */
export const sample = (documentType: DocumentType, version: number): string => {
  if (version < 1 || version > VERSIONS[documentType]) throw new Error(`no sample of ${documentType} ${version}`);
  return readFileSync(new URL(`documents/${documentType}.${version}.md`, import.meta.url), 'utf8');
};

/** SHA-256 in lower-case hexadecimal. */
export const sha256 = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex');
