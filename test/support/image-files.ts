/** `name = value` lines of postgresql.conf, without quotes and comments; of a name that comes twice the last. */
export const parseConf = (text: string): Record<string, string> =>
  Object.fromEntries(
    text.split('\n').flatMap((line) => {
      const [, name, value = ''] = /^\s*([\w.]+)\s*=?\s*('[^']*'|[^#]*?)\s*(?:#.*)?$/.exec(line) ?? [];
      return name === undefined ? [] : [[name, value.replace(/^'|'$/g, '')]];
    }),
  );

/** `name = value` lines of pgbouncer.ini, of all its sections. */
export const parseIni = (text: string): Record<string, string> =>
  Object.fromEntries([...text.matchAll(/^(\w+)\s*=\s*(.*?)\s*$/gm)].map(([, name, value]) => [name, value]));

/** The variables that PgBouncer's entrypoint reads: those it names, and each setting of its table in capitals. */
export const pgbouncerVariables = (entrypoint: string): string[] => {
  const [, table = ''] = /NUMBERS='([^']+)'/.exec(entrypoint) ?? [];
  const settings = [...table.matchAll(/^(\w+) \d+ \d+$/gm)].map(([, name = '']) => name.toUpperCase());
  const named = [...entrypoint.matchAll(/\$\{([A-Z_]+):-/g)].map(([, name = '']) => name);
  return [...settings, ...named];
};
