-- What the roles of people, monitoring and backups may see, and what the app may not change.

-- A migration makes no role: that takes an administrator.
do $$
declare
  missing text;
begin
  select string_agg(r.name, ', ' order by r.name) into missing
  from unnest(array['jeex_backup', 'jeex_monitor', 'jeex_readonly']) as r (name)
  where not exists (select from pg_roles where rolname = r.name);
  if missing is not null then
    raise undefined_object using
      message = format('the roles %s are missing: run `jeex-persistence bootstrap` first', missing);
  end if;
end $$;

-- Readonly looks into the project that its session names (set jeex.project_id = '…'); a backup takes everything. A row
-- that no policy shows would be missing from a dump without a word, so `maintenance` stands on every tenant table.
do $$
declare
  t text;
begin
  for t in select relname from pg_class where relnamespace = 'jeex'::regnamespace and relrowsecurity loop
    execute format('alter policy scope on %I to jeex_app, jeex_system, jeex_readonly', t);
    execute format('alter policy maintenance on %I to jeex_owner, jeex_backup', t);
    execute format('grant select on %I to jeex_readonly', t);
  end loop;
end $$;

grant usage on schema jeex to jeex_readonly, jeex_monitor, jeex_backup;
grant select (id, delete_time) on users to jeex_readonly;
grant select on schemaversion to jeex_monitor;
grant select on all tables in schema jeex to jeex_backup;
alter default privileges in schema jeex grant select on tables to jeex_backup;

-- The app writes by functions that run with its own rights: the columns they write, and no other.
revoke update on projects, project_members, documents, agent_executions, execution_counts, exports from jeex_app;
grant update (name, status, current_step, visibility, metadata, update_time, delete_time, purge_time, row_version, revision,
              chain, owners, members, documents, versions, content_bytes, exports, quota_content_bytes, quota_documents,
              quota_versions, quota_executions) on projects to jeex_app;
grant update (role, update_time) on project_members to jeex_app;
grant update (head_version) on documents to jeex_app;
grant update (status, error_message, cancel_reason, model, input_tokens, output_tokens, cost_micros, update_time, start_time,
              complete_time, lease_token, lease_expire_time, row_version) on agent_executions to jeex_app;
grant update (executions) on execution_counts to jeex_app;
grant update (status, file_path, file_size_bytes, file_sha256, error_message, download_count, complete_time, lease_token,
              lease_expire_time, row_version) on exports to jeex_app;

-- Retention is the owner's: it calls this in batches. Who grants on a function is its owner.
set local role jeex_system;
grant execute on function compact_changes to jeex_owner;
reset role;
