-- Tables, checks, row-level security and grants. Terms: a tenant table holds rows of one project and is keyed
-- (project_id, …); the scope is the project a transaction has entered (002). Roles come from `bootstrap`.

-- A function is called by whom it is granted to, and by nobody else.
alter default privileges revoke execute on functions from public;

-- Who calls, for whom, and which request this is: the first argument of every function that writes.
create type call as (
  actor uuid,            -- null: the system acts for itself
  caller text,
  correlation_id uuid,
  rpc text,
  request_id uuid,       -- null: not idempotent
  request_hash bytea,
  reply_key bytea
);

-- One rule for every status column: is this step allowed? Writers ask it first, a trigger refuses the rest.
create function legal_transition(kind text, old_status text, new_status text) returns boolean
language sql immutable parallel safe
return old_status || '>' || new_status = any (case kind
  when 'project' then array['DRAFT>ACTIVE', 'ACTIVE>COMPLETED', 'COMPLETED>ACTIVE', 'ACTIVE>ARCHIVED',
                            'COMPLETED>ARCHIVED', 'ARCHIVED>ACTIVE']
  when 'execution' then array['PENDING>RUNNING', 'PENDING>CANCELLED', 'RUNNING>COMPLETED', 'RUNNING>FAILED',
                              'RUNNING>CANCELLED', 'RUNNING>TIMED_OUT']
  when 'export' then array['PENDING>PROCESSING', 'PROCESSING>COMPLETED', 'PROCESSING>FAILED', 'PROCESSING>PENDING']
end);

create function refuse_illegal_transition() returns trigger language plpgsql as $$
begin
  if not legal_transition(tg_argv[0], old.status, new.status) then
    raise check_violation using
      message = format('%s status cannot go from %s to %s', tg_argv[0], old.status, new.status),
      constraint = tg_argv[0] || '_transition', table = tg_table_name, column = 'status';
  end if;
  return new;
end $$;

create table users (
  id uuid primary key default uuidv7(),
  email text,
  name text,
  profile bytea,  -- sealed envelope: key id (2 bytes, 0 = not sealed), nonce, ciphertext
  create_time timestamptz not null default clock_timestamp(),
  update_time timestamptz not null default clock_timestamp(),
  last_login_time timestamptz,
  delete_time timestamptz,
  row_version bigint not null default 1,
  -- Of the call that wrote the row last: users belong to no project, whose changes would tell.
  caller text not null,
  correlation_id uuid not null,
  constraint users_email_length check (char_length(email) between 3 and 255),
  constraint users_name_length check (char_length(name) between 1 and 255),
  constraint users_profile_envelope check (octet_length(profile) >= 2),
  -- An erased user keeps its id and nothing personal.
  constraint users_erased check (
    (delete_time is null) = (email is not null) and (delete_time is null) = (name is not null)
    and (delete_time is null or (profile is null and last_login_time is null)))
);
-- casefold is PostgreSQL 18's rule for "the same without regard to case".
create unique index users_email_key on users (casefold(email)) where delete_time is null;

create table projects (
  id uuid primary key default uuidv7(),
  name text not null,
  status text not null default 'DRAFT',
  current_step integer not null default 1,
  language text not null,
  visibility text not null default 'PRIVATE',
  metadata jsonb not null default '{}',
  created_by uuid references users,
  create_time timestamptz not null default clock_timestamp(),
  update_time timestamptz not null default clock_timestamp(),
  delete_time timestamptz,
  purge_time timestamptz,
  row_version bigint not null default 1,
  -- Counters: raised under this row's lock, so they are exact and gap-free.
  revision bigint not null default 0,
  earliest_revision bigint not null default 0,
  chain bytea not null default decode(repeat('00', 32), 'hex'),
  owners integer not null default 0,
  members integer not null default 0,
  documents bigint not null default 0,
  versions bigint not null default 0,
  content_bytes bigint not null default 0,
  exports bigint not null default 0,
  quota_content_bytes bigint not null default 1073741824,
  quota_documents bigint not null default 1000,
  quota_versions bigint not null default 100000,
  quota_executions bigint not null default 1000000,
  constraint projects_name_length check (char_length(name) between 1 and 255),
  constraint projects_status_known check (status in ('DRAFT', 'ACTIVE', 'COMPLETED', 'ARCHIVED')),
  constraint projects_step_range check (current_step between 1 and 4),
  constraint projects_language_tag check (
    char_length(language) between 2 and 10 and language ~ '^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$'),
  constraint projects_visibility_known check (visibility in ('PRIVATE', 'PUBLIC_READ')),
  constraint projects_metadata_object check (jsonb_typeof(metadata) = 'object'),
  constraint projects_purge_after_delete check ((delete_time is null) = (purge_time is null)),
  constraint projects_revisions check (revision >= 0 and earliest_revision between 0 and revision),
  constraint projects_chain_sha256 check (octet_length(chain) = 32),
  constraint projects_counters check (
    owners between 0 and members and members between 0 and 1000 and documents >= 0 and versions >= 0
    and content_bytes >= 0 and exports >= 0),
  constraint projects_quotas check (
    quota_content_bytes >= 0 and quota_documents >= 0 and quota_versions >= 0 and quota_executions >= 0)
) with (fillfactor = 50);  -- room for the counters' heap-only updates
create index projects_purge_due on projects (purge_time) where purge_time is not null;
create trigger project_transition before update of status on projects
  for each row when (old.status is distinct from new.status) execute function refuse_illegal_transition('project');

create function refuse_language_change() returns trigger language plpgsql as $$
begin
  raise check_violation using message = 'a project''s language never changes',
    constraint = 'projects_language_immutable', table = 'projects', column = 'language';
end $$;
create trigger projects_language_immutable before update of language on projects
  for each row when (old.language is distinct from new.language) execute function refuse_language_change();

create table project_members (
  project_id uuid not null references projects,
  user_id uuid not null references users,
  role text not null,
  create_time timestamptz not null default clock_timestamp(),
  update_time timestamptz not null default clock_timestamp(),
  primary key (project_id, user_id),
  constraint project_members_role_known check (role in ('VIEWER', 'EDITOR', 'OWNER'))
);
create index project_members_of_user on project_members (user_id, project_id);

-- Owner and member counts follow the rows, whoever writes them; nobody can take the last owner away.
create function count_members() returns trigger language plpgsql as $$
declare
  delta_members integer := (tg_op = 'INSERT')::int - (tg_op = 'DELETE')::int;
  delta_owners integer := 0;
begin
  if tg_op <> 'DELETE' then delta_owners := delta_owners + (new.role = 'OWNER')::int; end if;
  if tg_op <> 'INSERT' then delta_owners := delta_owners - (old.role = 'OWNER')::int; end if;
  if delta_members <> 0 or delta_owners <> 0 then
    update projects set members = members + delta_members, owners = owners + delta_owners
    where id = coalesce(new.project_id, old.project_id);
  end if;
  return null;
end $$;
create trigger count_members after insert or update of role or delete on project_members
  for each row execute function count_members();

create table document_bodies (
  project_id uuid not null references projects,
  sha256 bytea not null,
  content text not null,
  size_bytes bigint not null,
  primary key (project_id, sha256),
  constraint document_bodies_size check (size_bytes = octet_length(content) and size_bytes <= 3145728),
  constraint document_bodies_sha256 check (octet_length(sha256) = 32)
);

-- The head of each document: its counter row.
create table documents (
  project_id uuid not null references projects,
  document_type text not null,
  head_version integer not null,
  search_version integer not null default 0,  -- the version `search` was made from
  search tsvector,
  create_time timestamptz not null default clock_timestamp(),
  primary key (project_id, document_type),
  constraint documents_type_name check (document_type ~ '^[a-z][a-z0-9_.-]{0,49}$'),
  constraint documents_head_positive check (head_version > 0)
) with (fillfactor = 80);
create index documents_search_stale on documents (project_id) where search_version <> head_version;

create table agent_executions (
  project_id uuid not null references projects,
  id uuid not null default uuidv7(),
  agent_type text not null,
  correlation_id uuid not null,
  parent_execution_id uuid,
  attempt integer not null default 1,
  status text not null default 'PENDING',
  error_message text not null default '',
  cancel_reason text not null default '',
  model text not null default '',
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  cost_micros bigint not null default 0,
  created_by uuid references users,
  caller text not null,
  create_time timestamptz not null default clock_timestamp(),
  update_time timestamptz not null default clock_timestamp(),
  start_time timestamptz,
  complete_time timestamptz,
  lease_token uuid,
  lease_expire_time timestamptz,
  row_version bigint not null default 1,
  project_revision bigint not null,  -- the change that created it: its place in the timeline
  primary key (project_id, id),
  foreign key (project_id, parent_execution_id) references agent_executions,
  constraint executions_agent_type_length check (char_length(agent_type) between 1 and 100),
  constraint executions_attempt_positive check (attempt > 0),
  constraint executions_status_known check (
    status in ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED', 'TIMED_OUT')),
  constraint executions_error_length check (char_length(error_message) <= 4000),
  constraint executions_cancel_length check (char_length(cancel_reason) <= 4000),
  constraint executions_model_length check (char_length(model) <= 100),
  constraint executions_amounts check (input_tokens >= 0 and output_tokens >= 0 and cost_micros >= 0),
  constraint executions_lease_while_running check (
    (status = 'RUNNING') = (lease_token is not null) and (status = 'RUNNING') = (lease_expire_time is not null)),
  constraint executions_times check (
    (status = 'PENDING') <= (start_time is null and complete_time is null)
    and (status = 'RUNNING') <= (start_time is not null and complete_time is null)
    and (status in ('COMPLETED', 'FAILED', 'CANCELLED', 'TIMED_OUT')) <= (complete_time is not null)
    and start_time <= complete_time)
);
create index executions_correlation on agent_executions (project_id, correlation_id, project_revision);
create index executions_pending on agent_executions (agent_type, id) where status = 'PENDING';
create index executions_pending_since on agent_executions (create_time) where status = 'PENDING';
create index executions_lease_due on agent_executions (lease_expire_time) where status = 'RUNNING';
create trigger execution_transition before update of status on agent_executions
  for each row when (old.status is distinct from new.status) execute function refuse_illegal_transition('execution');

create table execution_payloads (
  project_id uuid not null,
  execution_id uuid not null,
  kind text not null,
  content_type text not null,
  data bytea not null,  -- sealed envelope
  primary key (project_id, execution_id, kind),
  foreign key (project_id, execution_id) references agent_executions,
  constraint execution_payloads_kind_known check (kind in ('input', 'output')),
  constraint execution_payloads_type_length check (char_length(content_type) between 1 and 255),
  constraint execution_payloads_envelope check (octet_length(data) between 2 and 1048576 + 64)
);

-- Executions by status, for usage and quota: kept by the triggers below, whoever writes.
create table execution_counts (
  project_id uuid not null references projects,
  status text not null,
  executions bigint not null,
  primary key (project_id, status),
  constraint execution_counts_not_negative check (executions >= 0)
) with (fillfactor = 50);

create function count_new_executions() returns trigger language plpgsql as $$
begin
  insert into execution_counts as c (project_id, status, executions)
  select project_id, status, count(*) from new_rows group by project_id, status order by project_id, status
  on conflict (project_id, status) do update set executions = c.executions + excluded.executions;
  return null;
end $$;
create function count_moved_executions() returns trigger language plpgsql as $$
begin
  -- A status is always counted before it is left, so the row to take from is there.
  update execution_counts c set executions = c.executions - o.left_behind
  from (select o.project_id, o.status, count(*) as left_behind from old_rows o join new_rows n using (project_id, id)
        where n.status <> o.status group by o.project_id, o.status) as o
  where c.project_id = o.project_id and c.status = o.status;
  insert into execution_counts as c (project_id, status, executions)
  select n.project_id, n.status, count(*) from new_rows n join old_rows o using (project_id, id)
  where n.status <> o.status group by n.project_id, n.status
  on conflict (project_id, status) do update set executions = c.executions + excluded.executions;
  return null;
end $$;
create trigger count_new_executions after insert on agent_executions
  referencing new table as new_rows for each statement execute function count_new_executions();
create trigger count_moved_executions after update on agent_executions
  referencing old table as old_rows new table as new_rows for each statement execute function count_moved_executions();

create table document_versions (
  id uuid not null default uuidv7(),
  project_id uuid not null,
  document_type text not null,
  version integer not null,
  content_sha256 bytea not null,
  size_bytes bigint not null,
  metadata jsonb not null default '{}',
  reason text not null default '',
  restored_from_version integer,
  readability_score double precision,
  grammar_score double precision,
  created_by uuid references users,
  caller text not null,
  correlation_id uuid not null,
  execution_id uuid,
  create_time timestamptz not null,
  project_revision bigint not null,
  primary key (project_id, document_type, version),
  foreign key (project_id, document_type) references documents,
  foreign key (project_id, content_sha256) references document_bodies,
  foreign key (project_id, execution_id) references agent_executions,
  foreign key (project_id, document_type, restored_from_version) references document_versions,
  constraint document_versions_positive check (version > 0),
  constraint document_versions_restored_earlier check (restored_from_version < version),
  constraint document_versions_reason_length check (char_length(reason) <= 4000),
  constraint document_versions_readability_range check (readability_score between 0 and 100),
  constraint document_versions_grammar_range check (grammar_score between 0 and 100),
  constraint document_versions_metadata_object check (jsonb_typeof(metadata) = 'object')
);
create index document_versions_at_revision on document_versions (project_id, document_type, project_revision);
create index document_versions_correlation on document_versions (project_id, correlation_id, project_revision);

create table exports (
  project_id uuid not null references projects,
  id uuid not null default uuidv7(),
  status text not null default 'PENDING',
  manifest jsonb not null,  -- [{document_type, version, content_sha256, size_bytes}], in document_type order
  file_path text not null default '',
  file_size_bytes bigint not null default 0,
  file_sha256 text not null default '',
  error_message text not null default '',
  download_count bigint not null default 0,
  created_by uuid references users,
  caller text not null,
  correlation_id uuid not null,
  create_time timestamptz not null default clock_timestamp(),
  complete_time timestamptz,
  expire_time timestamptz not null,
  lease_token uuid,
  lease_expire_time timestamptz,
  row_version bigint not null default 1,
  project_revision bigint not null,    -- the snapshot: heads as of this revision
  created_revision bigint not null,    -- the change that created it: its place in the timeline
  manifest_entries integer not null,   -- so that a list can end its page before it reads the manifests
  primary key (project_id, id),
  constraint exports_status_known check (status in ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED')),
  constraint exports_manifest_array check (jsonb_typeof(manifest) = 'array'),
  constraint exports_manifest_counted check (manifest_entries = jsonb_array_length(manifest)),
  constraint exports_file_path_length check (char_length(file_path) <= 1024),
  constraint exports_file_size check (file_size_bytes >= 0),
  constraint exports_file_sha256_hex check (file_sha256 = '' or file_sha256 ~ '^[0-9a-f]{64}$'),
  constraint exports_error_length check (char_length(error_message) <= 4000),
  constraint exports_downloads check (download_count >= 0),
  constraint exports_lifetime check (expire_time > create_time and expire_time <= create_time + interval '30 days'),
  constraint exports_complete check ((status = 'COMPLETED') <= (file_path <> '' and complete_time is not null)),
  constraint exports_lease_while_processing check (
    (status = 'PROCESSING') = (lease_token is not null) and (status = 'PROCESSING') = (lease_expire_time is not null))
);
create index exports_correlation on exports (project_id, correlation_id, created_revision);
create index exports_pending on exports (id) where status = 'PENDING';
create index exports_lease_due on exports (lease_expire_time) where status = 'PROCESSING';
create trigger export_transition before update of status on exports
  for each row when (old.status is distinct from new.status) execute function refuse_illegal_transition('export');

-- The audit record, the change feed and the timeline in one.
create table changes (
  project_id uuid not null references projects,
  revision bigint not null,
  kind text not null,
  resource_id uuid,
  document_type text,
  version integer,
  actor_id uuid references users,
  caller text not null,
  correlation_id uuid not null,
  create_time timestamptz not null,
  chain bytea not null,
  primary key (project_id, revision),
  constraint changes_kind_known check (kind in (
    'PROJECT_CREATED', 'PROJECT_UPDATED', 'PROJECT_DELETED', 'PROJECT_UNDELETED', 'PROJECT_QUOTA_SET', 'MEMBER_ADDED',
    'MEMBER_UPDATED', 'MEMBER_REMOVED', 'VERSION_APPENDED', 'EXECUTION_CREATED', 'EXECUTION_STARTED',
    'EXECUTION_COMPLETED', 'EXECUTION_FAILED', 'EXECUTION_CANCELLED', 'EXECUTION_TIMED_OUT', 'EXPORT_CREATED',
    'EXPORT_STARTED', 'EXPORT_COMPLETED', 'EXPORT_FAILED', 'EXPORT_RETURNED', 'EXPORT_DOWNLOADED')),
  constraint changes_revision_positive check (revision > 0),
  constraint changes_version_with_type check ((document_type is null) = (version is null)),
  constraint changes_caller_line check (char_length(caller) <= 255 and caller !~ '[\n\r]'),
  constraint changes_chain_sha256 check (octet_length(chain) = 32)
);
create index changes_correlation on changes (project_id, correlation_id, revision);

-- Replies kept for request ids: each sealed with a key that only the same request yields.
create table requests (
  request_id uuid not null,
  rpc text not null,
  caller text not null,
  actor_id uuid not null,  -- all zeros: the system
  request_hash bytea not null,
  reply bytea not null,
  project_id uuid,
  user_id uuid,
  create_time timestamptz not null default clock_timestamp(),
  primary key (request_id, rpc, caller, actor_id)
);
create index requests_of_project on requests (project_id) where project_id is not null;
create index requests_of_user on requests (user_id) where user_id is not null;
create index requests_of_actor on requests (actor_id);

-- What stays of a purged project: that it was, and when it went.
create table purges (
  project_id uuid primary key,
  purge_time timestamptz not null default clock_timestamp(),
  revision bigint not null,
  chain bytea not null,
  caller text not null,
  correlation_id uuid not null
);

-- Row-level security, forced on the owner too. `scope` is for who works inside one project; `maintenance` for the owner
-- (backfills, foreign keys: under FORCE it would see nothing). A bare comparison: a sub-select would be computed once per
-- statement and show a batch only its first caller's rows.
do $$
declare
  t text;
begin
  foreach t in array array['project_members', 'document_bodies', 'documents', 'agent_executions', 'execution_payloads',
                           'execution_counts', 'document_versions', 'exports', 'changes'] loop
    execute format('alter table %I enable row level security, force row level security', t);
    execute format($p$create policy scope on %I to jeex_app, jeex_system
      using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)
      with check (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)$p$, t);
    execute format('create policy maintenance on %I to jeex_owner using (true) with check (true)', t);
  end loop;
end $$;
alter table projects enable row level security, force row level security;
create policy scope on projects to jeex_app, jeex_system
  using (id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on projects to jeex_owner using (true) with check (true);

-- What the definer functions may look at across projects, each only as far as its work needs.
create policy crossing on projects for select to jeex_system using (true);
create policy crossing on project_members for select to jeex_system using (true);
create policy crossing on agent_executions for select to jeex_system using (status in ('PENDING', 'RUNNING'));
create policy crossing on exports for select to jeex_system using (status in ('PENDING', 'PROCESSING'));
create policy crossing on documents for select to jeex_system using (search_version <> head_version);

grant select, insert, update on users to jeex_app;
grant select, update on projects to jeex_app;
grant select, insert, update, delete on project_members to jeex_app;
grant select, insert on document_bodies, document_versions, changes to jeex_app;
grant select, insert, update on documents, agent_executions, execution_counts, exports to jeex_app;
grant select, insert on execution_payloads to jeex_app;

grant select on users to jeex_system;
grant select, insert, update, delete on projects, execution_counts, requests to jeex_system;
grant select, insert, delete on project_members, changes to jeex_system;
grant select, update, delete on agent_executions, exports, documents to jeex_system;
grant select, delete on document_bodies, document_versions, execution_payloads to jeex_system;
grant select, insert on purges to jeex_system;
