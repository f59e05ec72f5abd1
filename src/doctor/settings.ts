import type { Client } from 'pg';

/** Settings as they are in force for a connection; those the server does not know are absent. */
export const settingsOf = async (client: Client, names: readonly string[]): Promise<Record<string, string>> => {
  const { rows } = await client.query<{ found: Record<string, string> | null }>(
    `select jsonb_object_agg(name, value) filter (where value is not null) as found
     from unnest($1::text[]) as name, current_setting(name, true) as value`,
    [names],
  );
  return rows[0]?.found ?? {};
};
