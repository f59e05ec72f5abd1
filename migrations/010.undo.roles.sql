-- lint-ignore: dynamic-sql: takes jeex_readonly and jeex_backup out of the policies and rights of every tenant table
set local role jeex_system;
revoke execute on function compact_changes from jeex_owner;
reset role;

-- Revoking from a table revokes from its columns too.
revoke update on projects, project_members, documents, agent_executions, execution_counts, exports from jeex_app;
grant update on projects, project_members, documents, agent_executions, execution_counts, exports to jeex_app;

alter default privileges in schema jeex revoke select on tables from jeex_backup;
revoke select on all tables in schema jeex from jeex_backup;
revoke select on schemaversion from jeex_monitor;
revoke select (id, delete_time) on users from jeex_readonly;
revoke usage on schema jeex from jeex_readonly, jeex_monitor, jeex_backup;

do $$
declare
  t text;
begin
  for t in select relname from pg_class where relnamespace = 'jeex'::regnamespace and relrowsecurity loop
    execute format('revoke select on %I from jeex_readonly', t);
    execute format('alter policy maintenance on %I to jeex_owner', t);
    execute format('alter policy scope on %I to jeex_app, jeex_system', t);
  end loop;
end $$;
