/** The paths an update of a project may name; `language` only to say that it stays. */
export const PROJECT_PATHS = ['name', 'status', 'current_step', 'visibility', 'metadata', 'language'] as const;

/** What is wrong with a language tag (BCP 47, https://www.rfc-editor.org/info/bcp47); null when nothing is. */
export const languageFault = (tag: string): string | null => {
  try {
    Intl.getCanonicalLocales(tag);
    return null;
  } catch {
    return 'must be a BCP 47 language tag such as "en" or "pt-BR"';
  }
};

/** Who becomes owner of a new project: the actor, or whom the system names. A fault is in the words a caller reads. */
export const ownerFault = (actor: string | null, createdBy: string): string | null => {
  if (actor === null) {
    return createdBy === '' ? 'must name the owner when no actor is given' : null;
  }
  return createdBy === '' || createdBy.toLowerCase() === actor ? null : 'must be the actor, or empty';
};
