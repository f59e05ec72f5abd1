-- The declared schema: what the migrations make, in its final state, and the one place where a person edits it. After an edit
-- `jeex-persistence migrate generate NAME` compares the two, and writes the migration that leads here and its undo. Nothing
-- applies this file to a real database: migrations alone change those.
--
-- Renaming a column or a table is dropping one and adding another, unless a comment line directly above it says what it was
-- called: `-- renamed-from: old_name`. The line can go when the migration is written. A new column goes last in its table,
-- where a migration can put it.
--
-- jeex_owner makes all of this, with the search_path `jeex`, in one transaction. Roles, schemas and extensions are there
-- before: `bootstrap` makes them. What the migrator keeps for itself, such as `schemaversion`, it makes itself.
--
-- Terms: a tenant table holds rows of one project and is keyed (project_id, …). The scope is the project that a transaction
-- has entered. A definer function runs as jeex_system: for what crosses projects, and for tables that are nobody else's.
--
-- Sections: rights by default, types and rules, the scope, replies, sealing, users, projects and members, changes, documents,
-- search, executions, exports, erasure, purging, sweeping. Each has its tables, each table with its indexes, triggers, policies
-- and grants; then its functions, and who may call them.
--
-- A new tenant table is keyed and walled like `documents`: row-level security, enabled and forced, with the policies `scope`
-- and `maintenance`; select for jeex_readonly; for the app what it writes, by column where it updates. It gets a line in
-- `remove_rows`, an index for each foreign key that a purge follows, and no statistics on what people write.

-- ==== Rights by default ====

-- A function is called by whom it is granted to, and by nobody else.
alter default privileges revoke execute on functions from public;
-- A backup takes everything.
alter default privileges in schema jeex grant select on tables to jeex_backup;
grant usage on schema jeex to jeex_readonly, jeex_monitor, jeex_backup;
-- Until the end of this file, so that each section can hand its definer functions over to jeex_system. Grants on them come
-- first: who grants on a function is its owner.
grant create on schema jeex to jeex_system;

-- ==== Types and rules ====

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

grant execute on function legal_transition to jeex_app, jeex_system;

-- ==== The scope ====
-- Entering a project: what every statement is built from. `set_config` on jeex.project_id stands in this section only.
--
-- Row-level security is forced on the owner too. The policy `scope` is for who works inside one project; readonly looks into
-- the one that its session names (set jeex.project_id = '…'). It is a bare comparison: a sub-select would be computed once per
-- statement and show a batch only its first caller's rows. `maintenance` is for the owner (backfills, foreign keys) and for
-- backups: a row that no policy shows would be missing from a dump without a word. `crossing` is what the definer functions
-- may look at across projects, each table only as far as their work needs.

-- Who may enter: exactly one row. The verdict is 'OK' or the reason of the refusal; unless it is 'OK', project_id is
-- null and the scope is empty. `need` is reader (any role, or anyone while PUBLIC_READ), member, editor or owner; a null
-- actor is the system, an owner of every project. `with_deleted` lets owners into a deleted project. `lock` takes the
-- project's row lock first, so that the verdict and all that follows see every write before this one: writers of one
-- project queue here, and nowhere else. Who is no member takes no lock. A row lock is a write: its commit waits for the disk,
-- so that a refusal would take twice as long for a project that exists as for one that does not; and a stranger could hold up
-- the writers of a project it may not see. Whoever becomes a member after the lock was passed by is refused once more.
create function enter_project(project uuid, actor uuid, need text, with_deleted boolean default false,
                              lock boolean default false, out verdict text, out project_id uuid, out role text)
language plpgsql volatile parallel unsafe as $$
declare
  seen record;
  locked boolean := false;
begin
  perform set_config('jeex.project_id', project::text, true);
  if lock then
    perform from projects p
    where p.id = project and (actor is null or exists (
      select from project_members m where m.project_id = project and m.user_id = actor))
    for no key update;
    locked := found;
  end if;
  if actor is null then
    select p.id, p.visibility, p.delete_time, p.purge_time, 'OWNER' as role, true as known into seen
    from projects p where p.id = project;
  else
    select p.id, p.visibility, p.delete_time, p.purge_time, m.role, u.known into seen
    from (select exists (select from users where users.id = actor and users.delete_time is null) as known) u
    left join projects p on p.id = project
    left join project_members m on m.project_id = project and m.user_id = actor and locked = lock;
  end if;
  role := seen.role;
  verdict := case
    when not seen.known then 'ACTOR_UNKNOWN'
    when seen.id is null or seen.purge_time <= clock_timestamp() then 'PROJECT_NOT_FOUND'
    when seen.delete_time is not null and seen.role is distinct from 'OWNER' then 'PROJECT_NOT_FOUND'
    when seen.delete_time is not null and not with_deleted then 'PROJECT_DELETED'
    when seen.role is null and seen.visibility <> 'PUBLIC_READ' then 'PROJECT_NOT_FOUND'
    when need = 'reader' then 'OK'
    when need = 'member' and seen.role is not null then 'OK'
    when need = 'editor' and seen.role in ('EDITOR', 'OWNER') then 'OK'
    when need = 'owner' and seen.role = 'OWNER' then 'OK'
    else 'ROLE_REQUIRED'
  end;
  if verdict = 'OK' then
    project_id := project;
  else
    perform set_config('jeex.project_id', '', true);
  end if;
end $$;

-- Sets the scope without asking: for the definer functions, which have decided by themselves.
create function scope_to(project uuid) returns void language sql volatile
begin atomic
  select set_config('jeex.project_id', project::text, true);
end;

-- The opening of every write in a project: authorised under the project's lock, then replayed if it was done before.
-- The verdict is 'OK' (go on), 'REPLAY' (answer from `reply`) or the reason of the refusal.
create function begin_write(c call, project uuid, need text, with_deleted boolean default false,
                            out verdict text, out role text, out reply jsonb)
language plpgsql as $$
declare
  scope record;
  found_reply record;
begin
  select * into scope from enter_project(project, c.actor, need, with_deleted, lock => true);
  verdict := scope.verdict;
  role := scope.role;
  if verdict = 'OK' and c.request_id is not null then
    select * into found_reply from find_reply(c);
    verdict := found_reply.verdict;
    reply := found_reply.reply;
  end if;
end $$;

grant execute on function enter_project, begin_write to jeex_app, jeex_system;
grant execute on function scope_to to jeex_system;

-- ==== Replies ====

-- Replies kept for request ids: each sealed with a key that only the same request yields. The table is the definer functions'
-- alone.
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
create index requests_age on requests (create_time);
-- The planner's statistics are samples of the rows, and would keep an address after its user was erased, and a text after its
-- project was purged: here and below, none are kept of what people write, of what is sealed, and of errors that may quote it.
alter table requests alter request_hash set statistics 0, alter reply set statistics 0;
grant select, insert, update, delete on requests to jeex_system;

-- Looks a request id up: 'OK' to go on, 'REPLAY' with the reply to give again, or 'REQUEST_ID_REUSED'. The lock makes
-- parallel calls with one id wait for the first, whose reply the next statement then sees. Ids are kept for 24 hours.
create function find_reply(c call, out verdict text, out reply jsonb)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  stored record;
  asker uuid := coalesce(c.actor, '00000000-0000-0000-0000-000000000000');
begin
  verdict := 'OK';
  if c.request_id is null then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended(concat_ws('|', c.request_id, c.rpc, c.caller, asker), 0));
  select r.request_hash, r.reply into stored from requests r
  where r.request_id = c.request_id and r.rpc = c.rpc and r.caller = c.caller and r.actor_id = asker
    and r.create_time > clock_timestamp() - interval '24 hours';
  if not found then
    return;
  end if;
  if stored.request_hash <> c.request_hash then
    verdict := 'REQUEST_ID_REUSED';
    return;
  end if;
  verdict := 'REPLAY';
  reply := convert_from(crypto.decrypt(stored.reply, c.reply_key, 'aes-cbc/pad:pkcs'), 'UTF8')::jsonb;
end $$;

-- Keeps the reply of a successful request, sealed with the request's own key, until its project or user goes.
create function keep_reply(c call, project uuid, about_user uuid, reply jsonb) returns void
language plpgsql security definer set search_path = jeex, pg_temp as $$
begin
  if c.request_id is null then
    return;
  end if;
  insert into requests (request_id, rpc, caller, actor_id, request_hash, reply, project_id, user_id)
  values (c.request_id, c.rpc, c.caller, coalesce(c.actor, '00000000-0000-0000-0000-000000000000'), c.request_hash,
          crypto.encrypt(convert_to(reply::text, 'UTF8'), c.reply_key, 'aes-cbc/pad:pkcs'), project, about_user)
  on conflict (request_id, rpc, caller, actor_id) do update
  set request_hash = excluded.request_hash, reply = excluded.reply, project_id = excluded.project_id,
      user_id = excluded.user_id, create_time = excluded.create_time;
end $$;

grant execute on function find_reply, keep_reply to jeex_app;
alter function find_reply owner to jeex_system;
alter function keep_reply owner to jeex_system;

-- ==== Sealing ====
-- The service encrypts profiles, inputs and outputs before they come here. An envelope is the key's id (2 bytes, big-endian),
-- a nonce (12), the ciphertext, and the tag (16) over it and over what the row is: table, column, project and the last 8 bytes
-- of the row's id. The service draws those 8, so that it can seal a row that has no id yet.

-- The database's secret, sealed under each key the services hold: it tells a wrong key from the right one, and yields the
-- keys of stored replies, page tokens and profile_mac.
create table sealing_keys (
  key_id integer primary key,
  secret bytea not null,
  retired boolean not null default false,  -- seals nothing new: it is about to be removed
  create_time timestamptz not null default clock_timestamp(),
  constraint sealing_keys_id_range check (key_id between 1 and 65535),
  constraint sealing_keys_secret_envelope check (octet_length(secret) = 62)
);
grant select on sealing_keys to jeex_app, jeex_system;
grant insert (key_id, secret) on sealing_keys to jeex_app;

-- The id of the key an envelope is sealed under. Two bytes of a large value are read without the rest.
create function sealing_key(envelope bytea) returns integer language sql immutable strict parallel safe
return get_byte(substring(envelope, 1, 2), 0) * 256 + get_byte(substring(envelope, 1, 2), 1);

-- A new id in the order of time, whose last 8 bytes are those of `tail`.
create function id_ending(tail uuid) returns uuid language plpgsql volatile parallel safe as $$
begin
  if substr(tail::text, 20, 1) not in ('8', '9', 'a', 'b') then
    raise exception 'a new id would be no UUID of RFC 9562: the variant is in the bytes it was given';
  end if;
  return (substr(uuidv7()::text, 1, 19) || substr(tail::text, 20))::uuid;
end $$;

-- Adds the secret as sealed under one more key; `first` for the key that a new database begins with. Who comes second
-- finds what the first has decided.
create function register_sealing_key(id integer, envelope bytea, first boolean) returns boolean language plpgsql as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('sealing keys', 0));
  if first and exists (select from sealing_keys) then
    return false;
  end if;
  insert into sealing_keys (key_id, secret) values (id, envelope) on conflict (key_id) do nothing;
  return found;
end $$;

-- Nothing is sealed under a key that is not, or soon not, among those that open this database. Not a foreign key: that
-- would lock the key's one row for every writer.
create function refuse_unknown_key() returns trigger language plpgsql as $$
declare
  used integer;
begin
  if tg_table_name = 'users' then
    used := sealing_key(new.profile);
  else
    used := sealing_key(new.data);
  end if;
  if not exists (select from sealing_keys k where k.key_id = used and not k.retired) then
    raise exception using message = format('key %s is not in use for what is sealed in %s', used, tg_table_name),
      hint = 'Start this service with the key first that `keys rotate` made the first.';
  end if;
  return new;
end $$;

grant execute on function sealing_key, id_ending to jeex_app, jeex_system;
grant execute on function register_sealing_key to jeex_app;

-- ==== Users ====
-- Lock order everywhere: a user's row, then project rows in id order. The app reads ids of users and nothing else of them; the
-- rest goes through definer functions. Those that are given an actor decide by it; user_by_email, users_by_id and list_users
-- answer the system alone, and the service lets nobody else ask them.

create table users (
  id uuid primary key default uuidv7(),
  email text,
  name text,
  profile bytea storage external,  -- sealed envelope; what is sealed does not compress
  create_time timestamptz not null default clock_timestamp(),
  update_time timestamptz not null default clock_timestamp(),
  last_login_time timestamptz,
  delete_time timestamptz,
  row_version bigint not null default 1,
  -- Of the call that wrote the row last: users belong to no project, whose changes would tell.
  caller text not null,
  correlation_id uuid not null,
  profile_mac bytea,  -- of the plain profile: tells whether it changes, as its envelope always does
  constraint users_email_length check (char_length(email) between 3 and 255),
  constraint users_name_length check (char_length(name) between 1 and 255),
  constraint users_profile_envelope check (octet_length(profile) >= 2),
  constraint users_profile_mac_length check (octet_length(profile_mac) = 32),
  -- Key 0 marks plain bytes in the place of an envelope.
  constraint users_profile_sealed check (
    (profile is null) = (profile_mac is null) and octet_length(profile) >= 30 and sealing_key(profile) <> 0),
  -- An erased user keeps its id and nothing personal.
  constraint users_erased check (
    (delete_time is null) = (email is not null) and (delete_time is null) = (name is not null)
    and (delete_time is null or (profile is null and last_login_time is null)))
);
-- casefold is PostgreSQL 18's rule for "the same without regard to case".
create unique index users_email_key on users (casefold(email)) where delete_time is null;
alter table users alter email set statistics 0, alter name set statistics 0, alter profile set statistics 0,
  alter profile_mac set statistics 0, alter last_login_time set statistics 0;
alter index users_email_key alter column 1 set statistics 0;
create trigger users_known_key_first before insert on users
  for each row when (new.profile is not null) execute function refuse_unknown_key();
create trigger users_known_key_next before update of profile on users
  for each row when (new.profile is not null and new.profile is distinct from old.profile)
  execute function refuse_unknown_key();
grant select (id, delete_time) on users to jeex_app, jeex_readonly;
grant select, insert, update on users to jeex_system;

-- Whether the actor of a call that touches no project may act: null for "yes", or the reason.
create function refuse_actor(actor uuid) returns text language sql stable parallel safe
return case when actor is null or exists (select from users where id = actor and delete_time is null) then null
       else 'ACTOR_UNKNOWN' end;

-- Who may deal with a user: itself, and the system; fellow members may look. To others there is no such user.
create function enter_user(target uuid, actor uuid, fellows boolean, out verdict text) language plpgsql as $$
begin
  verdict := coalesce(refuse_actor(actor), case
    when actor is null or actor = target then 'OK'
    when not shares_project(actor, target) then 'USER_NOT_FOUND'
    when fellows then 'OK'
    else 'ROLE_REQUIRED'
  end);
end $$;

-- A user as a reply kept it. Its profile, if it had one, comes as it is sealed now, where it is still the same, or where the
-- key that sealed it then is gone.
create function with_current_seal(reply jsonb) returns jsonb language sql stable
begin atomic
  select coalesce((select with_current_seal.reply || jsonb_build_object('profile', u.profile) from users u
    where u.id = (with_current_seal.reply ->> 'id')::uuid and with_current_seal.reply ->> 'profile' is not null
      and (to_jsonb(u.profile_mac) = with_current_seal.reply -> 'profile_mac'
        or not exists (select from sealing_keys k
          where k.key_id = sealing_key((with_current_seal.reply ->> 'profile')::bytea)))), with_current_seal.reply);
end;

-- The opening of every write to a user: authorised, replayed if it was done before, and its row locked.
create function begin_user_write(c call, target uuid, out verdict text, out reply jsonb, out old users)
language plpgsql as $$
declare
  found_reply record;
begin
  verdict := enter_user(target, c.actor, false);
  if verdict <> 'OK' then
    return;
  end if;
  select * into found_reply from find_reply(c);
  verdict := found_reply.verdict;
  reply := with_current_seal(found_reply.reply);
  if verdict = 'OK' then
    select * into old from users u where u.id = target for no key update;
    if not found then
      verdict := 'USER_NOT_FOUND';
    end if;
  end if;
end $$;

-- Creates a user; EMAIL_TAKEN when a live user has the address in any case of letters. `tail`: see `id_ending`.
create function create_user(c call, tail uuid, email text, name text, profile bytea, profile_mac bytea,
                            out verdict text, out detail jsonb, out result users)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  opened record;
begin
  select * into opened from find_reply(c);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, with_current_seal(opened.reply));
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  insert into users (id, email, name, profile, profile_mac, caller, correlation_id)
  values (id_ending(tail), create_user.email, create_user.name, create_user.profile, create_user.profile_mac, c.caller,
          c.correlation_id)
  on conflict (casefold(users.email)) where delete_time is null do nothing
  returning * into result;
  if result.id is null then
    verdict := 'EMAIL_TAKEN';
    return;
  end if;
  perform keep_reply(c, null, result.id, to_jsonb(result));
end $$;

-- Changes the fields that are not null; a change of nothing writes nothing.
create function update_user(c call, target uuid, etag bigint, new_email text, new_name text, new_profile bytea,
                            new_profile_mac bytea, out verdict text, out detail jsonb, out result users)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  opened record;
begin
  select * into opened from begin_user_write(c, target);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  result := opened.old;
  if result.delete_time is not null then
    verdict := 'USER_NOT_FOUND';
  elsif etag <> result.row_version then
    verdict := 'ETAG_MISMATCH';
  elsif exists (select from users u where casefold(u.email) = casefold(new_email) and u.delete_time is null and u.id <> target) then
    verdict := 'EMAIL_TAKEN';
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  if (coalesce(new_email, result.email), coalesce(new_name, result.name), coalesce(new_profile_mac, result.profile_mac))
     is distinct from (result.email, result.name, result.profile_mac) then
    begin
      update users u set email = coalesce(new_email, u.email), name = coalesce(new_name, u.name),
        profile = coalesce(new_profile, u.profile), profile_mac = coalesce(new_profile_mac, u.profile_mac),
        update_time = clock_timestamp(), row_version = u.row_version + 1, caller = c.caller, correlation_id = c.correlation_id
      where u.id = target returning * into result;
    exception when unique_violation then
      -- Another call took the address after the check above.
      verdict := 'EMAIL_TAKEN';
      return;
    end;
  end if;
  perform keep_reply(c, null, target, to_jsonb(result));
end $$;

-- Notes when a user logged in last.
create function record_login(c call, target uuid, out verdict text, out detail jsonb, out result users)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  opened record;
begin
  select * into opened from begin_user_write(c, target);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict = 'OK' and (opened.old).delete_time is not null then
    verdict := 'USER_NOT_FOUND';
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  update users u set last_login_time = clock_timestamp(), row_version = u.row_version + 1, caller = c.caller,
    correlation_id = c.correlation_id
  where u.id = target returning * into result;
  perform keep_reply(c, null, target, to_jsonb(result));
end $$;

-- A user for itself, a fellow member or the system.
create function get_user(target uuid, actor uuid, out verdict text, out result users)
language plpgsql stable security definer set search_path = jeex, pg_temp as $$
begin
  verdict := enter_user(target, actor, true);
  if verdict = 'OK' then
    select * into result from users u where u.id = target;
    if not found then
      verdict := 'USER_NOT_FOUND';
    end if;
  end if;
end $$;

-- A live user by its address, in any case of letters; for the system. Its text is read when it runs, as are those of the two
-- below: one that is parsed when it is made breaks when `users` gains a column.
create function user_by_email(address text) returns setof users
language sql stable security definer set search_path = jeex, pg_temp as $$
  select u.* from users u where casefold(u.email) = casefold(address) and u.delete_time is null;
$$;

-- Those of the users that exist, in the order asked for; for the system.
create function users_by_id(ids uuid[]) returns setof users
language sql stable security definer set search_path = jeex, pg_temp as $$
  select u.* from unnest(ids) with ordinality as asked (id, place) join users u on u.id = asked.id order by asked.place;
$$;

-- Users for the system: newest first, before the id `before`, by the start of their address in any case of letters.
create function list_users(email_prefix text, before uuid, most integer) returns setof users
language sql stable security definer set search_path = jeex, pg_temp as $$
  select u.* from users u
  where (before is null or u.id < before)
    and (email_prefix = '' or (u.delete_time is null and starts_with(casefold(u.email), casefold(email_prefix))))
  order by u.id desc limit most;
$$;

-- Whether a user is there and not erased; if so, it stays that way until the transaction ends.
create function lock_live_user(target uuid) returns boolean
language plpgsql security definer set search_path = jeex, pg_temp as $$
begin
  perform from users u where u.id = target and u.delete_time is null for share;
  return found;
end $$;

grant execute on function refuse_actor, enter_user, with_current_seal to jeex_app, jeex_system;
grant execute on function create_user, update_user, record_login, get_user, user_by_email, users_by_id, list_users,
  lock_live_user to jeex_app;
grant execute on function begin_user_write to jeex_system;
alter function create_user owner to jeex_system;
alter function update_user owner to jeex_system;
alter function record_login owner to jeex_system;
alter function get_user owner to jeex_system;
alter function user_by_email owner to jeex_system;
alter function users_by_id owner to jeex_system;
alter function list_users owner to jeex_system;
alter function lock_live_user owner to jeex_system;

-- ==== Projects and members ====

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
alter table projects alter name set statistics 0, alter metadata set statistics 0;
create trigger project_transition before update of status on projects
  for each row when (old.status is distinct from new.status) execute function refuse_illegal_transition('project');

create function refuse_language_change() returns trigger language plpgsql as $$
begin
  raise check_violation using message = 'a project''s language never changes',
    constraint = 'projects_language_immutable', table = 'projects', column = 'language';
end $$;
create trigger projects_language_immutable before update of language on projects
  for each row when (old.language is distinct from new.language) execute function refuse_language_change();

alter table projects enable row level security, force row level security;
create policy scope on projects to jeex_app, jeex_system, jeex_readonly
  using (id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on projects to jeex_owner, jeex_backup using (true) with check (true);
create policy crossing on projects for select to jeex_system using (true);
-- The app writes by functions that run with its own rights: the columns they write, and no other.
grant select on projects to jeex_app, jeex_readonly;
grant update (name, status, current_step, visibility, metadata, update_time, delete_time, purge_time, row_version, revision,
              chain, owners, members, documents, versions, content_bytes, exports, quota_content_bytes, quota_documents,
              quota_versions, quota_executions) on projects to jeex_app;
grant select, insert, update, delete on projects to jeex_system;

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

alter table project_members enable row level security, force row level security;
create policy scope on project_members to jeex_app, jeex_system, jeex_readonly
  using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on project_members to jeex_owner, jeex_backup using (true) with check (true);
create policy crossing on project_members for select to jeex_system using (true);
grant select, insert, delete on project_members to jeex_app, jeex_system;
grant update (role, update_time) on project_members to jeex_app;
grant select on project_members to jeex_readonly;

-- Whether two users are members of one project. Crosses projects, so it runs as jeex_system.
create function shares_project(one uuid, other uuid) returns boolean
language sql stable security definer set search_path = jeex, pg_temp
begin atomic
  select exists (select from project_members a join project_members b using (project_id)
                 where a.user_id = one and b.user_id = other);
end;

-- Creates a project with its first owner: the actor, or whom the system names. Its scope does not exist before, so it
-- runs as jeex_system.
create function create_project(c call, name text, language text, metadata jsonb, owner uuid,
                               out verdict text, out detail jsonb, out result projects, out role text)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  opened record;
  new_id uuid := uuidv7();
  owner_id uuid := coalesce(c.actor, owner);
begin
  role := 'OWNER';
  verdict := coalesce(refuse_actor(c.actor), 'OK');
  if verdict = 'OK' then
    select * into opened from find_reply(c);
    verdict := opened.verdict;
  end if;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  perform from users u where u.id = owner_id and u.delete_time is null for share;
  if not found then
    verdict := 'USER_NOT_FOUND';
    detail := '{"field": "created_by"}';
    return;
  end if;
  perform scope_to(new_id);
  insert into projects (id, name, language, metadata, created_by) values (new_id, name, language, metadata, owner_id);
  insert into project_members (project_id, user_id, role) values (new_id, owner_id, 'OWNER');
  perform record_change(c, new_id, 'PROJECT_CREATED', new_id);
  select * into result from projects p where p.id = new_id;
  perform keep_reply(c, new_id, owner_id, to_jsonb(result));
end $$;

-- Changes the fields that are not null. A different language is LANGUAGE_IMMUTABLE, a new visibility takes an owner.
create function update_project(c call, project uuid, etag bigint, new_name text, new_status text, new_step integer,
                               new_visibility text, new_metadata jsonb, same_language text,
                               out verdict text, out detail jsonb, out result projects, out role text)
language plpgsql as $$
declare
  opened record;
begin
  select * into opened from begin_write(c, project, 'editor');
  verdict := opened.verdict;
  role := opened.role;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    role := opened.reply ->> 'role';
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  select * into result from projects p where p.id = project;
  verdict := case
    when new_visibility <> result.visibility and role <> 'OWNER' then 'ROLE_REQUIRED'
    when etag <> result.row_version then 'ETAG_MISMATCH'
    when same_language <> result.language then 'LANGUAGE_IMMUTABLE'
    when new_status <> result.status and not legal_transition('project', result.status, new_status) then 'ILLEGAL_TRANSITION'
    else 'OK'
  end;
  if verdict = 'ILLEGAL_TRANSITION' then
    detail := jsonb_build_object('from', result.status, 'to', new_status);
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  if (coalesce(new_name, result.name), coalesce(new_status, result.status), coalesce(new_step, result.current_step),
      coalesce(new_visibility, result.visibility), coalesce(new_metadata, result.metadata))
     is distinct from (result.name, result.status, result.current_step, result.visibility, result.metadata) then
    update projects p set name = coalesce(new_name, p.name), status = coalesce(new_status, p.status),
      current_step = coalesce(new_step, p.current_step), visibility = coalesce(new_visibility, p.visibility),
      metadata = coalesce(new_metadata, p.metadata), update_time = clock_timestamp(), row_version = p.row_version + 1
    where p.id = project;
    perform record_change(c, project, 'PROJECT_UPDATED', project);
    select * into result from projects p where p.id = project;
  end if;
  perform keep_reply(c, project, null, to_jsonb(result) || jsonb_build_object('role', role));
end $$;

-- Deletes softly, or takes that back: hidden from all but owners, purged 30 days later.
create function set_project_deleted(c call, project uuid, etag bigint, deleted boolean,
                                    out verdict text, out detail jsonb, out result projects, out role text)
language plpgsql as $$
declare
  opened record;
  moment timestamptz := clock_timestamp();
begin
  select * into opened from begin_write(c, project, 'owner', with_deleted => true);
  verdict := opened.verdict;
  role := opened.role;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    role := opened.reply ->> 'role';
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  select * into result from projects p where p.id = project;
  if etag <> result.row_version then
    verdict := 'ETAG_MISMATCH';
    return;
  end if;
  if deleted is distinct from (result.delete_time is not null) then
    update projects p set delete_time = case when deleted then moment end,
      purge_time = case when deleted then moment + interval '30 days' end,
      update_time = moment, row_version = p.row_version + 1
    where p.id = project;
    perform record_change(c, project, case when deleted then 'PROJECT_DELETED' else 'PROJECT_UNDELETED' end, project);
    select * into result from projects p where p.id = project;
  end if;
  perform keep_reply(c, project, null, to_jsonb(result) || jsonb_build_object('role', role));
end $$;

-- Changes the quotas that are not null.
create function set_project_quota(c call, project uuid, content_bytes bigint, documents bigint, versions bigint,
                                  executions bigint, out verdict text, out detail jsonb, out result projects,
                                  out counts jsonb)
language plpgsql as $$
declare
  opened record;
begin
  select * into opened from begin_write(c, project, 'owner');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply -> 'project');
    counts := opened.reply -> 'counts';
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  update projects p set
    quota_content_bytes = coalesce(set_project_quota.content_bytes, p.quota_content_bytes),
    quota_documents = coalesce(set_project_quota.documents, p.quota_documents),
    quota_versions = coalesce(set_project_quota.versions, p.quota_versions),
    quota_executions = coalesce(set_project_quota.executions, p.quota_executions)
  where p.id = project and (p.quota_content_bytes, p.quota_documents, p.quota_versions, p.quota_executions) is distinct from
    (coalesce(set_project_quota.content_bytes, p.quota_content_bytes), coalesce(set_project_quota.documents, p.quota_documents),
     coalesce(set_project_quota.versions, p.quota_versions), coalesce(set_project_quota.executions, p.quota_executions));
  if found then
    perform record_change(c, project, 'PROJECT_QUOTA_SET', project);
  end if;
  select * into result from projects p where p.id = project;
  counts := (select jsonb_object_agg(e.status, e.executions::text) from execution_counts e where e.project_id = project);
  perform keep_reply(c, project, null, jsonb_build_object('project', to_jsonb(result), 'counts', counts));
end $$;

-- The projects an actor is a member of (the system: all), newest first, before the id `before`, with its role in each.
-- Deleted ones are shown to their owners, when asked for.
create function list_projects(actor uuid, statuses text[], with_deleted boolean, before uuid, most integer)
returns table (verdict text, project projects, role text)
language plpgsql stable security definer set search_path = jeex, pg_temp as $$
begin
  if refuse_actor(actor) is not null then
    return query select refuse_actor(actor), null::projects, null::text;
  elsif actor is null then
    return query select 'OK', p, 'OWNER' from projects p
      where (before is null or p.id < before) and (statuses = '{}' or p.status = any (statuses))
        and (p.delete_time is null or (with_deleted and p.purge_time > clock_timestamp()))
      order by p.id desc limit most;
  else
    return query select 'OK', p, m.role from project_members m join projects p on p.id = m.project_id
      where m.user_id = actor and (before is null or m.project_id < before) and (statuses = '{}' or p.status = any (statuses))
        and (p.delete_time is null or (with_deleted and m.role = 'OWNER' and p.purge_time > clock_timestamp()))
      order by m.project_id desc limit most;
  end if;
end $$;

-- Makes a user a member, or changes its role. LAST_OWNER for the last owner's step down; at most 1 000 members.
create function set_member(c call, project uuid, target uuid, new_role text,
                           out verdict text, out detail jsonb, out result project_members)
language plpgsql as $$
declare
  target_known boolean;
  opened record;
  counted record;
begin
  -- Who is no owner is refused before any lock: it would hold up the target's own calls, and tell by its time who exists.
  verdict := (enter_project(project, c.actor, 'owner')).verdict;
  if verdict <> 'OK' then
    return;
  end if;
  -- Users before projects, as everywhere: erasing the user waits for this row's lock, or this finds it erased.
  target_known := lock_live_user(target);
  -- Asked again, under the project's lock: the actor may have lost its role since.
  select * into opened from begin_write(c, project, 'owner');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  if not target_known then
    verdict := 'USER_NOT_FOUND';
    return;
  end if;
  select * into result from project_members m where m.project_id = project and m.user_id = target;
  select p.owners, p.members into counted from projects p where p.id = project;
  if result.role = 'OWNER' and new_role <> 'OWNER' and counted.owners = 1 then
    verdict := 'LAST_OWNER';
  elsif result.user_id is null and counted.members >= 1000 then
    verdict := 'QUOTA_EXCEEDED';
    detail := jsonb_build_object('quota', 'members', 'limit', '1000', 'used', counted.members::text);
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  if result.user_id is null then
    insert into project_members (project_id, user_id, role) values (project, target, new_role) returning * into result;
    perform record_change(c, project, 'MEMBER_ADDED', target);
  elsif result.role <> new_role then
    update project_members m set role = new_role, update_time = clock_timestamp()
    where m.project_id = project and m.user_id = target returning * into result;
    perform record_change(c, project, 'MEMBER_UPDATED', target);
  end if;
  perform keep_reply(c, project, target, to_jsonb(result));
end $$;

-- Ends a membership. Who leaves by itself needs no role, and is answered again after it has left.
create function remove_member(c call, project uuid, target uuid,
                              out verdict text, out detail jsonb, out result project_members)
language plpgsql as $$
declare
  opened record;
  leaves boolean := c.actor is not distinct from target;
begin
  if leaves then
    select f.verdict, f.reply into opened from find_reply(c) as f;
    verdict := opened.verdict;
  end if;
  if verdict is distinct from 'REPLAY' and verdict is distinct from 'REQUEST_ID_REUSED' then
    select b.verdict, b.reply into opened from begin_write(c, project, case when leaves then 'member' else 'owner' end) as b;
    verdict := opened.verdict;
  end if;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  select * into result from project_members m where m.project_id = project and m.user_id = target;
  if not found then
    verdict := 'MEMBER_NOT_FOUND';
  elsif result.role = 'OWNER' and (select p.owners from projects p where p.id = project) = 1 then
    verdict := 'LAST_OWNER';
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  delete from project_members m where m.project_id = project and m.user_id = target;
  perform record_change(c, project, 'MEMBER_REMOVED', target);
  perform keep_reply(c, project, target, to_jsonb(result));
end $$;

grant execute on function shares_project, create_project, update_project, set_project_deleted, set_project_quota, list_projects,
  set_member, remove_member to jeex_app;
alter function shares_project owner to jeex_system;
alter function create_project owner to jeex_system;
alter function list_projects owner to jeex_system;

-- ==== Changes ====

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
alter table changes enable row level security, force row level security;
create policy scope on changes to jeex_app, jeex_system, jeex_readonly
  using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on changes to jeex_owner, jeex_backup using (true) with check (true);
grant select, insert on changes to jeex_app;
grant select, insert, delete on changes to jeex_system;
grant select on changes to jeex_readonly;

-- What a change's chain is made of: the previous chain, then the change's fields in the order of the contract, one a
-- line, absent ones empty, the time in microseconds since 1970. Anyone who has the changes can compute it again.
create function chain_link(previous bytea, c changes) returns bytea language sql immutable parallel safe
return sha256(previous || convert_to(concat_ws(e'\n', c.project_id, c.revision, c.kind, coalesce(c.resource_id::text, ''),
  coalesce(c.document_type, ''), coalesce(c.version::text, ''), coalesce(c.actor_id::text, ''), c.caller, c.correlation_id,
  (extract(epoch from c.create_time) * 1000000)::bigint), 'UTF8'));

-- Records changes of the entered project, in the order of the arrays, and raises its revision by one for each. The caller
-- holds the project's row lock. Returns the first of the new revisions. What the changes add to the project's usage is
-- counted in the same update.
create function record_changes(c call, project uuid, kinds text[], resources uuid[], document_types text[], versions integer[],
                               more_documents bigint default 0, more_versions bigint default 0, more_bytes bigint default 0)
returns bigint language plpgsql as $$
declare
  head record;
  link changes;
  links changes[] := '{}';
begin
  select p.revision, p.chain into strict head from projects p where p.id = project;
  link.project_id := project;
  link.actor_id := c.actor;
  link.caller := c.caller;
  link.correlation_id := c.correlation_id;
  link.create_time := clock_timestamp();
  link.chain := head.chain;
  for i in 1 .. cardinality(kinds) loop
    link.revision := head.revision + i;
    link.kind := kinds[i];
    link.resource_id := resources[i];
    link.document_type := document_types[i];
    link.version := versions[i];
    link.chain := chain_link(link.chain, link);
    links := links || link;
  end loop;
  insert into changes select l.* from unnest(links) as l;
  update projects p set revision = link.revision, chain = link.chain, documents = p.documents + more_documents,
    versions = p.versions + more_versions, content_bytes = p.content_bytes + more_bytes
  where p.id = project;
  return head.revision + 1;
end $$;

-- The same for one change of a resource that is no document.
create function record_change(c call, project uuid, kind text, resource uuid default null) returns bigint
language sql volatile
return record_changes(c, project, array[kind], array[resource], array[null::text], array[null::integer]);

-- Deletes the oldest changes of a project up to a revision, at most `most` of them, and tells in `earliest_revision` from which
-- cursor on the feed is still whole: an older one is REVISION_COMPACTED. Answers how many went. Runs as jeex_system: nobody
-- else may delete what is the audit record.
create function compact_changes(project uuid, up_to bigint, most integer) returns integer
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  first bigint;
  last bigint;
begin
  perform scope_to(project);
  select p.earliest_revision, least(up_to, p.revision, p.earliest_revision + most) into first, last
  from projects p where p.id = project for no key update;
  if first is null or last <= first then
    return 0;
  end if;
  delete from changes c where c.project_id = project and c.revision > first and c.revision <= last;
  update projects p set earliest_revision = last where p.id = project;
  return last - first;
end $$;

grant execute on function chain_link, record_changes, record_change to jeex_app, jeex_system;
alter function compact_changes owner to jeex_system;
-- Retention is the owner's: it calls this in batches. Handing over takes its own right away, so jeex_system grants it.
set local role jeex_system;
grant execute on function compact_changes to jeex_owner;
reset role;

-- ==== Documents ====
-- Versions come from the head's counter under the project's lock: 1, 2, 3, … without a gap.

create table document_bodies (
  project_id uuid not null references projects,
  sha256 bytea not null,
  content text not null,
  size_bytes bigint not null,
  primary key (project_id, sha256),
  constraint document_bodies_size check (size_bytes = octet_length(content) and size_bytes <= 3145728),
  constraint document_bodies_sha256 check (octet_length(sha256) = 32)
);
alter table document_bodies alter content set statistics 0;
alter table document_bodies enable row level security, force row level security;
create policy scope on document_bodies to jeex_app, jeex_system, jeex_readonly
  using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on document_bodies to jeex_owner, jeex_backup using (true) with check (true);
grant select, insert on document_bodies to jeex_app;
grant select, delete on document_bodies to jeex_system;
grant select on document_bodies to jeex_readonly;

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
alter table documents alter search set statistics 0;
alter table documents enable row level security, force row level security;
create policy scope on documents to jeex_app, jeex_system, jeex_readonly
  using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on documents to jeex_owner, jeex_backup using (true) with check (true);
create policy crossing on documents for select to jeex_system using (search_version <> head_version);
grant select, insert on documents to jeex_app;
grant update (head_version) on documents to jeex_app;
grant select, update, delete on documents to jeex_system;
grant select on documents to jeex_readonly;

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
-- What refers to a row that a purge removes: without these, and executions_parent, it looks through all of the project for
-- each, and 30 000 versions took 21 s instead of 1.7 s.
create index document_versions_body on document_versions (project_id, content_sha256);
create index document_versions_execution on document_versions (project_id, execution_id) where execution_id is not null;
create index document_versions_restored on document_versions (project_id, document_type, restored_from_version)
  where restored_from_version is not null;
alter table document_versions alter metadata set statistics 0, alter reason set statistics 0;
alter table document_versions enable row level security, force row level security;
create policy scope on document_versions to jeex_app, jeex_system, jeex_readonly
  using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on document_versions to jeex_owner, jeex_backup using (true) with check (true);
grant select, insert on document_versions to jeex_app;
grant select, delete on document_versions to jeex_system;
grant select on document_versions to jeex_readonly;

-- Adds the next version of a document to the entered and locked project. `v` brings what the caller knows of it; its
-- body is there already.
create function add_version(c call, v document_versions) returns document_versions language plpgsql as $$
begin
  insert into documents as d (project_id, document_type, head_version) values (v.project_id, v.document_type, 1)
  on conflict (project_id, document_type) do update set head_version = d.head_version + 1
  returning d.head_version into v.version;
  v.id := uuidv7();
  v.created_by := c.actor;
  v.caller := c.caller;
  v.correlation_id := c.correlation_id;
  v.create_time := clock_timestamp();
  insert into document_versions select (v).*;
  return v;
end $$;

-- Judges entries before anything is written: every expected_version, execution and quota, as if the entries before were
-- there already. The verdict names the entry; `entry_field` is the request's field that holds them, null for a single one.
create function judge_entries(project uuid, document_types text[], sizes bigint[], hashes bytea[], expected integer[],
                              executions uuid[], entry_field text, out verdict text, out detail jsonb)
language plpgsql as $$
declare
  p record;
  entries integer := cardinality(document_types);
  heads jsonb := '{}';
  head integer;
  new_documents bigint := 0;
  new_bytes bigint := 0;
begin
  verdict := 'OK';
  for i in 1 .. entries loop
    head := (heads ->> document_types[i])::integer;
    if head is null then
      select d.head_version into head from documents d where d.project_id = project and d.document_type = document_types[i];
      head := coalesce(head, 0);
      new_documents := new_documents + (head = 0)::int;
    end if;
    heads := heads || jsonb_build_object(document_types[i], head + 1);
    if expected[i] <> head then
      verdict := 'VERSION_CONFLICT';
      detail := jsonb_build_object('current_version', head::text);
    elsif executions[i] is not null and not exists (
        select from agent_executions e where e.project_id = project and e.id = executions[i]) then
      verdict := 'EXECUTION_NOT_FOUND';
      detail := '{}';
    end if;
    if verdict <> 'OK' then
      if entry_field is not null then
        detail := detail || jsonb_build_object('entry', (i - 1)::text, 'field', format('%s[%s]', entry_field, i - 1));
      end if;
      return;
    end if;
    if hashes[i] <> all (hashes[:i - 1])
       and not exists (select from document_bodies b where b.project_id = project and b.sha256 = hashes[i]) then
      new_bytes := new_bytes + sizes[i];
    end if;
  end loop;
  select * into p from projects where id = project;
  if p.documents + new_documents > p.quota_documents or p.versions + entries > p.quota_versions
     or p.content_bytes + new_bytes > p.quota_content_bytes then
    -- A quota below what is used already stops what adds to it, and nothing else.
    select 'QUOTA_EXCEEDED', jsonb_build_object('quota', q.name, 'limit', q.most::text, 'used', q.used::text)
    into verdict, detail
    from (values ('documents', p.quota_documents, p.documents, new_documents),
                 ('versions', p.quota_versions, p.versions, entries::bigint),
                 ('content_bytes', p.quota_content_bytes, p.content_bytes, new_bytes)) as q (name, most, used, more)
    where q.more > 0 and q.used + q.more > q.most limit 1;
    verdict := coalesce(verdict, 'OK');
  end if;
end $$;

-- Appends entries, all or none, to the entered and locked project: bodies once per hash, versions, changes, counters.
create function append_entries(c call, project uuid, document_types text[], contents text[], hashes bytea[],
                               metadatas jsonb[], reasons text[], readabilities double precision[],
                               grammars double precision[], expected integer[], executions uuid[], entry_field text,
                               out verdict text, out detail jsonb, out results document_versions[])
language plpgsql as $$
declare
  judged record;
  sizes bigint[] := array(select octet_length(content) from unnest(contents) with ordinality as u (content, i) order by i);
  v document_versions;
  revision bigint;
  stored_bytes bigint := 0;
  new_documents bigint := 0;
  inserted integer;
begin
  select * into judged from judge_entries(project, document_types, sizes, hashes, expected, executions, entry_field);
  verdict := judged.verdict;
  detail := judged.detail;
  if verdict <> 'OK' then
    return;
  end if;
  select p.revision into revision from projects p where p.id = project;
  for i in 1 .. cardinality(document_types) loop
    insert into document_bodies (project_id, sha256, content, size_bytes) values (project, hashes[i], contents[i], sizes[i])
    on conflict do nothing;
    get diagnostics inserted = row_count;
    stored_bytes := stored_bytes + inserted * sizes[i];
    v := null;
    v.project_id := project;
    v.document_type := document_types[i];
    v.content_sha256 := hashes[i];
    v.size_bytes := sizes[i];
    v.metadata := coalesce(metadatas[i], '{}');
    v.reason := coalesce(reasons[i], '');
    v.readability_score := readabilities[i];
    v.grammar_score := grammars[i];
    v.execution_id := executions[i];
    v.project_revision := revision + i;
    v := add_version(c, v);
    new_documents := new_documents + (v.version = 1)::int;
    results := results || v;
  end loop;
  perform record_changes(c, project, array_fill('VERSION_APPENDED'::text, array[cardinality(document_types)]),
    array(select r.id from unnest(results) as r), document_types, array(select r.version from unnest(results) as r),
    new_documents, cardinality(document_types), stored_bytes);
end $$;

-- AppendVersion and BatchAppendVersions.
create function append_versions(c call, project uuid, document_types text[], contents text[], hashes bytea[],
                                metadatas jsonb[], reasons text[], readabilities double precision[],
                                grammars double precision[], expected integer[], executions uuid[], entry_field text,
                                out verdict text, out detail jsonb, out results document_versions[])
language plpgsql as $$
declare
  opened record;
  appended record;
begin
  select * into opened from begin_write(c, project, 'editor');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    results := array(select r from jsonb_populate_recordset(null::document_versions, opened.reply) as r);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  select * into appended from append_entries(c, project, document_types, contents, hashes, metadatas, reasons,
    readabilities, grammars, expected, executions, entry_field);
  verdict := appended.verdict;
  detail := appended.detail;
  results := appended.results;
  if verdict = 'OK' then
    perform keep_reply(c, project, null, to_jsonb(results));
  end if;
end $$;

-- Going back appends: a new version with the content, metadata and scores of an old one.
create function restore_version(c call, project uuid, document_type text, version integer, reason text, expected integer,
                                out verdict text, out detail jsonb, out result document_versions)
language plpgsql as $$
declare
  opened record;
  head integer;
begin
  select * into opened from begin_write(c, project, 'editor');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  select d.head_version into head from documents d
  where d.project_id = project and d.document_type = restore_version.document_type;
  if not found then
    verdict := 'DOCUMENT_NOT_FOUND';
    return;
  end if;
  select * into result from document_versions v
  where v.project_id = project and v.document_type = restore_version.document_type and v.version = restore_version.version;
  if not found then
    verdict := 'VERSION_NOT_FOUND';
  elsif expected <> head then
    verdict := 'VERSION_CONFLICT';
    detail := jsonb_build_object('current_version', head::text);
  else
    select * into verdict, detail from judge_entries(project, array[restore_version.document_type], array[0::bigint],
      array[result.content_sha256], array[null::integer], array[null::uuid], null);
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  result.reason := restore_version.reason;
  result.restored_from_version := result.version;
  result.execution_id := null;
  select p.revision + 1 into result.project_revision from projects p where p.id = project;
  result := add_version(c, result);
  perform record_changes(c, project, array['VERSION_APPENDED'], array[result.id], array[result.document_type],
    array[result.version], more_versions => 1);
  perform keep_reply(c, project, null, to_jsonb(result));
end $$;

grant execute on function add_version, judge_entries, append_entries, append_versions, restore_version to jeex_app;

-- ==== Search ====
-- Full text over the heads: the first 256 KiB of each, in the project's language. `documents.search` is made in the
-- background, from the head that `search_version` names; a search makes it on the fly where it is older than the head.

-- The text search configuration of a BCP 47 language tag, by its primary subtag; `simple` where PostgreSQL has none.
create function search_config(language text) returns regconfig language sql immutable parallel safe
return case lower(split_part(language, '-', 1))
  when 'ar' then 'pg_catalog.arabic'
  when 'hy' then 'pg_catalog.armenian'
  when 'eu' then 'pg_catalog.basque'
  when 'ca' then 'pg_catalog.catalan'
  when 'da' then 'pg_catalog.danish'
  when 'nl' then 'pg_catalog.dutch'
  when 'en' then 'pg_catalog.english'
  when 'et' then 'pg_catalog.estonian'
  when 'fi' then 'pg_catalog.finnish'
  when 'fr' then 'pg_catalog.french'
  when 'de' then 'pg_catalog.german'
  when 'el' then 'pg_catalog.greek'
  when 'hi' then 'pg_catalog.hindi'
  when 'hu' then 'pg_catalog.hungarian'
  when 'id' then 'pg_catalog.indonesian'
  when 'ga' then 'pg_catalog.irish'
  when 'it' then 'pg_catalog.italian'
  when 'lt' then 'pg_catalog.lithuanian'
  when 'ne' then 'pg_catalog.nepali'
  when 'nb' then 'pg_catalog.norwegian'
  when 'nn' then 'pg_catalog.norwegian'
  when 'no' then 'pg_catalog.norwegian'
  when 'pt' then 'pg_catalog.portuguese'
  when 'ro' then 'pg_catalog.romanian'
  when 'ru' then 'pg_catalog.russian'
  when 'sr' then 'pg_catalog.serbian'
  when 'es' then 'pg_catalog.spanish'
  when 'sv' then 'pg_catalog.swedish'
  when 'ta' then 'pg_catalog.tamil'
  when 'tr' then 'pg_catalog.turkish'
  when 'yi' then 'pg_catalog.yiddish'
  else 'pg_catalog.simple'
end::regconfig;

-- The first bytes of a content, at most `most`, that end with a whole character.
create function search_text(content text, most integer default 262144) returns text
language plpgsql immutable parallel safe as $$
declare
  bytes bytea;
begin
  if octet_length(content) <= most then
    return content;
  end if;
  -- A character has at most four bytes, so this is enough, and spares the rest of a large content.
  bytes := convert_to(left(content, most), 'UTF8');
  while octet_length(bytes) > most and (get_byte(bytes, most) & 192) = 128 loop
    most := most - 1;
  end loop;
  return convert_from(substring(bytes from 1 for most), 'UTF8');
end $$;

-- A text that PostgreSQL's parser reads in time that grows with its length alone: on a long run without a space, or an
-- unclosed tag, it grows with the square, to minutes for 256 KiB.
create function search_soft(content text) returns text language sql immutable parallel safe
return regexp_replace(replace(content, '<', ' '), '(\S{64})', '\1 ', 'g');

-- The vector a content is found by. A vector holds 1 MB of lexemes; 256 KiB of the oddest words make 0.8 MB. What does
-- not fit all the same is found by nothing, and stands in nobody's way.
create function search_vector(language text, content text, most integer default 262144) returns tsvector
language plpgsql immutable parallel unsafe as $$
begin
  return to_tsvector(search_config(language), search_soft(search_text(content, most)));
exception when program_limit_exceeded then
  return '';
end $$;

-- The words of a query as its configuration knows them, any of them. What takes time with the number of words, or with
-- every pair of them, works with this.
create function search_terms(language text, query text) returns tsquery language sql immutable parallel safe
return (select coalesce(string_agg('''' || replace(replace(t.lexeme, '\', '\\'), '''', '''''') || '''', ' | '), '')::tsquery
        from unnest(to_tsvector(search_config(language), query)) as t);

-- Excerpts of a content that matches: from the first part of it that matches as a whole, else the first that has one of
-- the terms. The search for excerpts takes seconds in a large and repetitive text, so it gets a few KiB of it.
create function search_headline(language text, content text, query tsquery, terms tsquery, options text) returns text
language plpgsql immutable parallel safe as $$
declare
  config regconfig := search_config(language);
  part text;
  best text;
  vector tsvector;
begin
  for start in 1 .. greatest(char_length(content), 1) by 8000 loop
    part := substr(content, start, 8200);  -- overlaps, so that no word is cut in every part
    vector := to_tsvector(config, search_soft(part));
    if vector @@ query then
      best := part;
      exit;
    elsif best is null and vector @@ terms then
      best := part;
    end if;
  end loop;
  return ts_headline(config, coalesce(best, left(content, 8200)), terms, options);
end $$;

-- Makes the vectors of at most `most` heads that have none of their own yet, of any projects, for three seconds at most;
-- returns how many. In no order, so that no head keeps the others waiting for ever. Only one such call works at a time.
-- Vectors are made before the first row is locked, and a row that is locked is left for the next call, so appending waits
-- for one short update at most, and never in a circle.
create function index_heads(most integer) returns integer
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  projects uuid[];
  types text[];
  heads integer[];
  languages text[];
  vectors tsvector[] := '{}';
  updated integer;
  indexed integer := 0;
  until timestamptz := clock_timestamp() + interval '3 seconds';
begin
  if not pg_try_advisory_xact_lock(hashtextextended('jeex.index_heads', 0)) then
    return 0;
  end if;
  select array_agg(s.project_id), array_agg(s.document_type), array_agg(s.head_version), array_agg(s.language)
  into projects, types, heads, languages
  from (select d.project_id, d.document_type, d.head_version, p.language
        from documents d join projects p on p.id = d.project_id
        where d.search_version <> d.head_version order by random() limit most) as s;
  for i in 1 .. coalesce(cardinality(projects), 0) loop
    exit when clock_timestamp() > until;
    perform scope_to(projects[i]);
    vectors[i] := (select search_vector(languages[i], b.content)
                   from document_versions v
                   join document_bodies b on b.project_id = v.project_id and b.sha256 = v.content_sha256
                   where v.project_id = projects[i] and v.document_type = types[i] and v.version = heads[i]);
  end loop;
  for i in 1 .. cardinality(vectors) loop
    perform scope_to(projects[i]);
    update documents d set search = vectors[i], search_version = heads[i]
    from (select s.project_id, s.document_type from documents s
          where s.project_id = projects[i] and s.document_type = types[i] and s.head_version = heads[i]
          for update skip locked) as free
    where d.project_id = free.project_id and d.document_type = free.document_type;
    get diagnostics updated = row_count;
    indexed := indexed + updated;
  end loop;
  return indexed;
end $$;

grant execute on function search_config, search_text, search_soft, search_vector to jeex_app, jeex_system;
grant execute on function search_terms, search_headline, index_heads to jeex_app;
alter function index_heads owner to jeex_system;

-- ==== Executions ====
-- Agents' runs. A run is recorded by one change, EXECUTION_CREATED, whatever its status; each step from there to another
-- status is one more.

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
create index executions_parent on agent_executions (project_id, parent_execution_id) where parent_execution_id is not null;
create index executions_pending on agent_executions (agent_type, id) where status = 'PENDING';
-- Oldest first, for who claims without naming agents.
create index executions_pending_oldest on agent_executions (id) where status = 'PENDING';
create index executions_pending_since on agent_executions (create_time) where status = 'PENDING';
create index executions_lease_due on agent_executions (lease_expire_time) where status = 'RUNNING';
alter table agent_executions alter error_message set statistics 0, alter cancel_reason set statistics 0;
create trigger execution_transition before update of status on agent_executions
  for each row when (old.status is distinct from new.status) execute function refuse_illegal_transition('execution');
alter table agent_executions enable row level security, force row level security;
create policy scope on agent_executions to jeex_app, jeex_system, jeex_readonly
  using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on agent_executions to jeex_owner, jeex_backup using (true) with check (true);
create policy crossing on agent_executions for select to jeex_system using (status in ('PENDING', 'RUNNING'));
grant select, insert on agent_executions to jeex_app;
grant update (status, error_message, cancel_reason, model, input_tokens, output_tokens, cost_micros, update_time, start_time,
              complete_time, lease_token, lease_expire_time, row_version) on agent_executions to jeex_app;
grant select, update, delete on agent_executions to jeex_system;
grant select on agent_executions to jeex_readonly;

-- A version may name the run that wrote it.
alter table document_versions add foreign key (project_id, execution_id) references agent_executions;

create table execution_payloads (
  project_id uuid not null,
  execution_id uuid not null,
  kind text not null,
  content_type text not null,
  data bytea storage external not null,  -- sealed envelope
  primary key (project_id, execution_id, kind),
  foreign key (project_id, execution_id) references agent_executions,
  constraint execution_payloads_kind_known check (kind in ('input', 'output')),
  constraint execution_payloads_type_length check (char_length(content_type) between 1 and 255),
  constraint execution_payloads_envelope check (octet_length(data) between 2 and 1048576 + 64),
  constraint execution_payloads_data_sealed check (octet_length(data) >= 30 and sealing_key(data) <> 0)
);
alter table execution_payloads alter data set statistics 0;
create trigger execution_payloads_known_key before insert or update of data on execution_payloads
  for each row execute function refuse_unknown_key();
alter table execution_payloads enable row level security, force row level security;
create policy scope on execution_payloads to jeex_app, jeex_system, jeex_readonly
  using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on execution_payloads to jeex_owner, jeex_backup using (true) with check (true);
grant select, insert on execution_payloads to jeex_app;
grant select, delete on execution_payloads to jeex_system;
grant select on execution_payloads to jeex_readonly;

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

alter table execution_counts enable row level security, force row level security;
create policy scope on execution_counts to jeex_app, jeex_system, jeex_readonly
  using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on execution_counts to jeex_owner, jeex_backup using (true) with check (true);
grant select, insert on execution_counts to jeex_app;
grant update (executions) on execution_counts to jeex_app;
grant select, insert, update, delete on execution_counts to jeex_system;
grant select on execution_counts to jeex_readonly;

-- Judges new runs before anything is written: parents, times that only the database can judge, the quota. The verdict
-- names the entry; `entry_field` is the request's field that holds them, null for a single one.
create function judge_executions(project uuid, runs agent_executions[], moment timestamptz, entry_field text,
                                 out verdict text, out detail jsonb)
language plpgsql as $$
declare
  wrong record;
  quota bigint := (select p.quota_executions from projects p where p.id = project);
  used bigint := (select coalesce(sum(e.executions), 0) from execution_counts e where e.project_id = project);
begin
  verdict := 'OK';
  select judged.*, concat(entry_field || '[' || judged.place - 1 || '].', judged.field) as path into wrong
  from (
    select r.ordinality as place, case
      when r.parent_execution_id is not null and not exists (
        select from agent_executions e where e.project_id = project and e.id = r.parent_execution_id)
        then 'parent_execution_id'
      when r.start_time > moment then 'start_time'
      when r.complete_time > moment then 'complete_time'
    end as field
    from unnest(runs) with ordinality as r
  ) as judged
  where judged.field is not null order by judged.place limit 1;
  if wrong.field = 'parent_execution_id' then
    verdict := 'EXECUTION_NOT_FOUND';
    detail := jsonb_build_object('field', wrong.path);
  elsif wrong.field is not null then
    verdict := 'INVALID_FIELD';
    detail := jsonb_build_object('field', wrong.path, 'description', 'must not lie in the future of the database''s clock');
  elsif used + cardinality(runs) > quota then
    verdict := 'QUOTA_EXCEEDED';
    detail := jsonb_build_object('quota', 'executions', 'limit', quota::text, 'used', used::text);
  end if;
end $$;

-- CreateExecution and BatchCreateExecutions. `entries` is a JSON array of what the caller knows, by column; the other
-- arrays are its parallels, null where an entry has no such thing. The runs' ids end as `tails`: see `id_ending`. RUNNING
-- entries bring lease_seconds.
create function create_executions(c call, project uuid, entries jsonb, tails uuid[], lease_seconds integer[],
                                  input_types text[], inputs bytea[], output_types text[], outputs bytea[], entry_field text,
                                  out verdict text, out detail jsonb, out results agent_executions[])
language plpgsql as $$
declare
  opened record;
  judged record;
  moment timestamptz;
  revision bigint;
  ids uuid[];
begin
  select * into opened from begin_write(c, project, 'editor');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    results := array(select r from jsonb_populate_recordset(null::agent_executions, opened.reply) as r);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  moment := clock_timestamp();
  select p.revision into revision from projects p where p.id = project;
  results := array(
    select jsonb_populate_record(null::agent_executions, e.entry || jsonb_build_object(
      'project_id', project, 'id', id_ending(e.tail),
      'correlation_id', coalesce(e.entry ->> 'correlation_id', c.correlation_id::text),
      'created_by', c.actor, 'caller', c.caller, 'create_time', moment, 'update_time', moment, 'row_version', 1,
      'project_revision', revision + e.place) || case when e.entry ->> 'status' = 'RUNNING' then jsonb_build_object(
      'start_time', coalesce((e.entry ->> 'start_time')::timestamptz, moment), 'lease_token', gen_random_uuid(),
      'lease_expire_time', moment + make_interval(secs => e.seconds)) else '{}' end)
    from rows from (jsonb_array_elements(entries), unnest(tails), unnest(lease_seconds))
      with ordinality as e (entry, tail, seconds, place)
    order by e.place);
  select * into judged from judge_executions(project, results, moment, entry_field);
  verdict := judged.verdict;
  detail := judged.detail;
  if verdict <> 'OK' then
    results := null;
    return;
  end if;
  ids := array(select r.id from unnest(results) with ordinality as r order by r.ordinality);
  insert into agent_executions select r.* from unnest(results) as r;
  insert into execution_payloads (project_id, execution_id, kind, content_type, data)
  select project, i.id, 'input', i.content_type, i.data from unnest(ids, input_types, inputs) as i (id, content_type, data)
  where i.data is not null
  union all
  select project, o.id, 'output', o.content_type, o.data from unnest(ids, output_types, outputs) as o (id, content_type, data)
  where o.data is not null;
  perform record_changes(c, project, array_fill('EXECUTION_CREATED'::text, array[cardinality(ids)]), ids, null, null);
  perform keep_reply(c, project, null, to_jsonb(results));
end $$;

-- The opening of every write to a run: authorised under the project's lock, replayed if it was done before, and found.
create function begin_execution_write(c call, project uuid, execution uuid,
                                      out verdict text, out reply jsonb, out run agent_executions)
language plpgsql as $$
declare
  opened record;
begin
  select * into opened from begin_write(c, project, 'editor');
  verdict := opened.verdict;
  reply := opened.reply;
  if verdict = 'OK' then
    select * into run from agent_executions e where e.project_id = project and e.id = execution;
    if not found then
      verdict := 'EXECUTION_NOT_FOUND';
    end if;
  end if;
end $$;

-- May the holder of a lease take this step? `step` is the status it wants, RUNNING to go on. A lease is lost when its time
-- is over, whether or not anything has noticed. Tokens are compared as text: what is no token of ours is a wrong one.
create function judge_lease(run agent_executions, token text, step text) returns text language sql volatile
return case
  when run.status = 'RUNNING' and run.lease_token::text = token and run.lease_expire_time > clock_timestamp() then 'OK'
  when run.status in ('RUNNING', 'TIMED_OUT') or step = 'RUNNING' then 'LEASE_LOST'
  else 'ILLEGAL_TRANSITION'
end;

-- Writes a run's new state and records the change.
create function save_execution(c call, run agent_executions, kind text) returns agent_executions language plpgsql as $$
begin
  run.update_time := clock_timestamp();
  run.row_version := run.row_version + 1;
  if run.status <> 'RUNNING' then
    run.complete_time := greatest(run.update_time, run.start_time);
    run.lease_token := null;
    run.lease_expire_time := null;
  end if;
  update agent_executions e set status = run.status, error_message = run.error_message, cancel_reason = run.cancel_reason,
    model = run.model, input_tokens = run.input_tokens, output_tokens = run.output_tokens, cost_micros = run.cost_micros,
    update_time = run.update_time, start_time = run.start_time, complete_time = run.complete_time,
    lease_token = run.lease_token, lease_expire_time = run.lease_expire_time, row_version = run.row_version
  where e.project_id = run.project_id and e.id = run.id;
  perform record_change(c, run.project_id, kind, run.id);
  return run;
end $$;

-- Puts a PENDING run under a new lease.
create function lease_execution(c call, run agent_executions, lease_seconds integer) returns agent_executions
language plpgsql as $$
begin
  run.status := 'RUNNING';
  run.start_time := clock_timestamp();
  run.lease_token := gen_random_uuid();
  run.lease_expire_time := run.start_time + make_interval(secs => lease_seconds);
  return save_execution(c, run, 'EXECUTION_STARTED');
end $$;

-- The input travels with the run, also when the answer is given again.
create function start_execution(c call, project uuid, execution uuid, lease_seconds integer,
                                out verdict text, out detail jsonb, out result agent_executions,
                                out input_type text, out input bytea)
language plpgsql as $$
declare
  opened record;
begin
  select * into opened from begin_execution_write(c, project, execution);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
  elsif verdict = 'OK' and (opened.run).status <> 'PENDING' then
    verdict := 'ILLEGAL_TRANSITION';
    detail := jsonb_build_object('from', (opened.run).status, 'to', 'RUNNING');
  elsif verdict = 'OK' then
    result := lease_execution(c, opened.run, lease_seconds);
    perform keep_reply(c, project, null, to_jsonb(result));
  end if;
  select p.content_type, p.data into input_type, input from execution_payloads p
  where verdict = 'OK' and p.project_id = project and p.execution_id = execution and p.kind = 'input';
end $$;

-- PENDING runs of live projects, oldest first, of some agents or (none named) of all.
create function pending_executions(agent_types text[], most integer, out project_id uuid, out id uuid) returns setof record
language plpgsql stable security definer set search_path = jeex, pg_temp as $$
begin
  if agent_types = '{}' then
    return query select e.project_id, e.id from agent_executions e join projects p on p.id = e.project_id
    where e.status = 'PENDING' and p.delete_time is null order by e.id limit most;
  else
    -- Agent by agent, by an interval of one: an equality would let the planner walk all runs by id and look for the agent.
    return query select e.project_id, e.id from (select distinct t from unnest(agent_types) as t) as wanted
    cross join lateral (
      select r.project_id, r.id from agent_executions r join projects p on p.id = r.project_id
      where r.agent_type >= wanted.t and r.agent_type <= wanted.t and r.status = 'PENDING' and p.delete_time is null
      order by r.agent_type, r.id limit most) as e
    order by e.id limit most;
  end if;
end $$;

-- Takes one candidate if it is still to be had: its project locked, live, and the run PENDING. Who does not get it gives
-- the project's lock back at once, so that nobody waits for a second project while holding a first.
create function take_execution(c call, project uuid, execution uuid, lease_seconds integer) returns agent_executions
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  run agent_executions;
begin
  perform scope_to(project);
  perform from projects p where p.id = project and p.delete_time is null for no key update;
  if found then
    select * into run from agent_executions e where e.project_id = project and e.id = execution and e.status = 'PENDING';
  end if;
  if run.id is null then
    raise exception using errcode = 'JX001', message = 'somebody else has it';
  end if;
  return lease_execution(c, run, lease_seconds);
exception when sqlstate 'JX001' then
  return null;
end $$;

-- ClaimExecution: the oldest PENDING run of any live project, started; OK without a result when there is none. Crosses
-- projects, so it runs as jeex_system. A candidate that somebody else is taking right now is passed over.
create function claim_execution(c call, agent_types text[], lease_seconds integer,
                                out verdict text, out detail jsonb, out result agent_executions,
                                out input_type text, out input bytea)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  opened record;
  candidate record;
  stale boolean := true;
begin
  select * into opened from find_reply(c);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    perform scope_to(result.project_id);
  elsif verdict = 'OK' then
    while stale and result.id is null loop
      stale := false;
      for candidate in select p.project_id, p.id from pending_executions(agent_types, 100) as p loop
        continue when not pg_try_advisory_xact_lock(hashtextextended('execution|' || candidate.id, 0));
        result := take_execution(c, candidate.project_id, candidate.id, lease_seconds);
        -- Gone while this waited, and others perhaps with it: look again.
        stale := result.id is null;
        exit;
      end loop;
    end loop;
    perform keep_reply(c, result.project_id, null, coalesce(to_jsonb(result), '{}'));
  end if;
  select p.content_type, p.data into input_type, input from execution_payloads p
  where verdict = 'OK' and p.project_id = result.project_id and p.execution_id = result.id and p.kind = 'input';
end $$;

-- Extends the lease. No change is recorded: a heartbeat is no news.
create function heartbeat_execution(c call, project uuid, execution uuid, token text, lease_seconds integer,
                                    out verdict text, out detail jsonb, out result agent_executions)
language plpgsql as $$
declare
  opened record;
begin
  select * into opened from begin_execution_write(c, project, execution);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict = 'OK' then
    verdict := judge_lease(opened.run, token, 'RUNNING');
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  update agent_executions e set lease_expire_time = clock_timestamp() + make_interval(secs => lease_seconds),
    update_time = clock_timestamp(), row_version = e.row_version + 1
  where e.project_id = project and e.id = execution returning * into result;
  perform keep_reply(c, project, null, to_jsonb(result));
end $$;

-- CompleteExecution: the run's versions and its end, in this order, or neither. Versions as in append_versions.
create function complete_execution(c call, project uuid, execution uuid, token text, output_type text, output bytea,
                                   model text, input_tokens bigint, output_tokens bigint, cost_micros bigint,
                                   document_types text[], contents text[], hashes bytea[], metadatas jsonb[],
                                   reasons text[], readabilities double precision[], grammars double precision[],
                                   expected integer[], executions uuid[],
                                   out verdict text, out detail jsonb, out result agent_executions,
                                   out versions document_versions[])
language plpgsql as $$
declare
  opened record;
  appended record;
begin
  select * into opened from begin_execution_write(c, project, execution);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply -> 'execution');
    versions := array(select v from jsonb_populate_recordset(null::document_versions, opened.reply -> 'versions') as v);
    return;
  elsif verdict = 'OK' then
    verdict := judge_lease(opened.run, token, 'COMPLETED');
  end if;
  if verdict = 'ILLEGAL_TRANSITION' then
    detail := jsonb_build_object('from', (opened.run).status, 'to', 'COMPLETED');
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  versions := '{}';
  if document_types <> '{}' then
    select * into appended from append_entries(c, project, document_types, contents, hashes, metadatas, reasons,
      readabilities, grammars, expected, executions, 'versions');
    verdict := appended.verdict;
    detail := appended.detail;
    versions := appended.results;
    if verdict <> 'OK' then
      return;
    end if;
  end if;
  if output is not null then
    insert into execution_payloads (project_id, execution_id, kind, content_type, data)
    values (project, execution, 'output', output_type, output);
  end if;
  result := opened.run;
  result.status := 'COMPLETED';
  result.model := complete_execution.model;
  result.input_tokens := complete_execution.input_tokens;
  result.output_tokens := complete_execution.output_tokens;
  result.cost_micros := complete_execution.cost_micros;
  result := save_execution(c, result, 'EXECUTION_COMPLETED');
  perform keep_reply(c, project, null, jsonb_build_object('execution', to_jsonb(result), 'versions', to_jsonb(versions)));
end $$;

-- FailExecution, under the lease, and CancelExecution, without.
create function end_execution(c call, project uuid, execution uuid, new_status text, token text, explanation text,
                              out verdict text, out detail jsonb, out result agent_executions)
language plpgsql as $$
declare
  opened record;
begin
  select * into opened from begin_execution_write(c, project, execution);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict = 'OK' and new_status = 'FAILED' then
    verdict := judge_lease(opened.run, token, new_status);
  elsif verdict = 'OK' and not legal_transition('execution', (opened.run).status, new_status) then
    verdict := 'ILLEGAL_TRANSITION';
  end if;
  if verdict = 'ILLEGAL_TRANSITION' then
    detail := jsonb_build_object('from', (opened.run).status, 'to', new_status);
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  result := opened.run;
  result.status := new_status;
  if new_status = 'FAILED' then
    result.error_message := explanation;
  else
    result.cancel_reason := explanation;
  end if;
  result := save_execution(c, result, 'EXECUTION_' || new_status);
  perform keep_reply(c, project, null, to_jsonb(result));
end $$;

grant execute on function judge_executions, create_executions, begin_execution_write, start_execution, claim_execution,
  heartbeat_execution, complete_execution, end_execution to jeex_app;
grant execute on function judge_lease, save_execution, lease_execution to jeex_app, jeex_system;
grant execute on function pending_executions, take_execution to jeex_system;
alter function pending_executions owner to jeex_system;
alter function take_execution owner to jeex_system;
alter function claim_execution owner to jeex_system;

-- ==== Exports ====
-- A manifest fixed at one revision, worked on under a lease. An expired export stays as it was stored; EXPIRED, and PENDING for
-- a lease that ran out, are what the database's clock makes of it.

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
alter table exports alter error_message set statistics 0, alter file_path set statistics 0;
create trigger export_transition before update of status on exports
  for each row when (old.status is distinct from new.status) execute function refuse_illegal_transition('export');
alter table exports enable row level security, force row level security;
create policy scope on exports to jeex_app, jeex_system, jeex_readonly
  using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)
  with check (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid);
create policy maintenance on exports to jeex_owner, jeex_backup using (true) with check (true);
create policy crossing on exports for select to jeex_system using (status in ('PENDING', 'PROCESSING'));
grant select, insert on exports to jeex_app;
grant update (status, file_path, file_size_bytes, file_sha256, error_message, download_count, complete_time, lease_token,
              lease_expire_time, row_version) on exports to jeex_app;
grant select, update, delete on exports to jeex_system;
grant select on exports to jeex_readonly;

-- An export's status by the database's clock.
create function export_status(e exports) returns text language sql volatile
return case
  when e.expire_time <= clock_timestamp() then 'EXPIRED'
  when e.status = 'PROCESSING' and e.lease_expire_time <= clock_timestamp() then 'PENDING'
  else e.status
end;

-- Fixes the heads of these documents (of all, for an empty array) as they are at the project's revision.
create function create_export(c call, project uuid, document_types text[], ttl interval,
                              out verdict text, out detail jsonb, out result exports)
language plpgsql as $$
declare
  opened record;
  missing bigint;
  -- A manifest of this many entries is an answer of less than 3 MiB.
  most constant integer := 20000;
begin
  select * into opened from begin_write(c, project, 'member');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  select min(t.place) into missing from unnest(document_types) with ordinality as t (name, place)
  where not exists (select from documents d where d.project_id = project and d.document_type = t.name);
  if missing is not null then
    verdict := 'DOCUMENT_NOT_FOUND';
    detail := jsonb_build_object('field', format('document_types[%s]', missing - 1));
    return;
  end if;
  if document_types = '{}' and (select p.documents from projects p where p.id = project) > most then
    verdict := 'INVALID_FIELD';
    detail := jsonb_build_object('field', 'document_types', 'description',
      format('the project has more than %s documents: name those to export', most));
    return;
  end if;
  select coalesce(jsonb_agg(jsonb_build_object('document_type', d.document_type, 'version', d.head_version,
      'content_sha256', encode(v.content_sha256, 'hex'), 'size_bytes', v.size_bytes) order by d.document_type), '[]'),
    count(*)
  into result.manifest, result.manifest_entries
  from documents d join document_versions v
    on v.project_id = project and v.document_type = d.document_type and v.version = d.head_version
  where d.project_id = project and (document_types = '{}' or d.document_type = any (document_types));
  select p.revision into result.project_revision from projects p where p.id = project;
  result.create_time := clock_timestamp();
  insert into exports (project_id, manifest, manifest_entries, created_by, caller, correlation_id, create_time, expire_time,
                       project_revision, created_revision)
  values (project, result.manifest, result.manifest_entries, c.actor, c.caller, c.correlation_id, result.create_time,
          result.create_time + ttl, result.project_revision, result.project_revision + 1)
  returning * into result;
  update projects p set exports = p.exports + 1 where p.id = project;
  perform record_change(c, project, 'EXPORT_CREATED', result.id);
  perform keep_reply(c, project, null, to_jsonb(result));
end $$;

-- The opening of every write to an export: authorised under the project's lock, replayed if it was done before, found, and
-- not expired. `status` is its status by the clock.
create function begin_export_write(c call, project uuid, export uuid, need text,
                                   out verdict text, out reply jsonb, out old exports, out status text)
language plpgsql as $$
declare
  opened record;
begin
  select * into opened from begin_write(c, project, need);
  verdict := opened.verdict;
  reply := opened.reply;
  if verdict <> 'OK' then
    return;
  end if;
  select * into old from exports e where e.project_id = project and e.id = export;
  if not found then
    verdict := 'EXPORT_NOT_FOUND';
    return;
  end if;
  status := export_status(old);
  if status = 'EXPIRED' then
    verdict := 'EXPORT_EXPIRED';
  end if;
end $$;

-- Writes an export's new state and records the change.
create function save_export(c call, e exports, kind text) returns exports language plpgsql as $$
begin
  e.row_version := e.row_version + 1;
  if e.status <> 'PROCESSING' then
    e.lease_token := null;
    e.lease_expire_time := null;
  end if;
  update exports x set status = e.status, file_path = e.file_path, file_size_bytes = e.file_size_bytes,
    file_sha256 = e.file_sha256, error_message = e.error_message, download_count = e.download_count,
    complete_time = e.complete_time, lease_token = e.lease_token, lease_expire_time = e.lease_expire_time,
    row_version = e.row_version
  where x.project_id = e.project_id and x.id = e.id;
  perform record_change(c, e.project_id, kind, e.id);
  return e;
end $$;

-- Puts an export that waits for a worker under a new lease. One whose lease ran out goes back first, by the service's hand.
create function lease_export(c call, e exports, lease_seconds integer) returns exports language plpgsql as $$
begin
  if e.status = 'PROCESSING' then
    e.status := 'PENDING';
    e := save_export(sweeper(e.correlation_id), e, 'EXPORT_RETURNED');
  end if;
  e.status := 'PROCESSING';
  e.lease_token := gen_random_uuid();
  e.lease_expire_time := clock_timestamp() + make_interval(secs => lease_seconds);
  return save_export(c, e, 'EXPORT_STARTED');
end $$;

create function start_export(c call, project uuid, export uuid, lease_seconds integer,
                             out verdict text, out detail jsonb, out result exports)
language plpgsql as $$
declare
  opened record;
begin
  select * into opened from begin_export_write(c, project, export, 'owner');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict = 'OK' and opened.status <> 'PENDING' then
    verdict := 'ILLEGAL_TRANSITION';
    detail := jsonb_build_object('from', opened.status, 'to', 'PROCESSING');
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  result := lease_export(c, opened.old, lease_seconds);
  perform keep_reply(c, project, null, to_jsonb(result));
end $$;

-- Exports of live projects that wait for a worker and have not expired, oldest first.
create function waiting_exports(most integer, out project_id uuid, out id uuid) returns setof record
language plpgsql stable security definer set search_path = jeex, pg_temp as $$
declare
  -- Ids tell when they were made, and none lives longer than 30 days: older ones need no look.
  oldest uuid := uuidv7(interval '-31 days');
begin
  return query
  select w.project_id, w.id from (
    (select e.project_id, e.id from exports e join projects p on p.id = e.project_id
     where e.status = 'PENDING' and e.id >= oldest and e.expire_time > clock_timestamp() and p.delete_time is null
     order by e.id limit most)
    union all
    (select e.project_id, e.id from exports e join projects p on p.id = e.project_id
     where e.status = 'PROCESSING' and e.lease_expire_time <= clock_timestamp() and e.expire_time > clock_timestamp()
       and p.delete_time is null
     order by e.lease_expire_time limit most)) as w
  order by w.id limit most;
end $$;

-- Takes one candidate if it is still to be had: its project locked and live, and the export waiting. Who does not get it
-- gives the project's lock back at once, so that nobody waits for a second project while holding a first.
create function take_export(c call, project uuid, export uuid, lease_seconds integer) returns exports
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  taken exports;
begin
  perform scope_to(project);
  perform from projects p where p.id = project and p.delete_time is null for no key update;
  if found then
    select * into taken from exports e where e.project_id = project and e.id = export and export_status(e) = 'PENDING';
  end if;
  if taken.id is null then
    raise exception using errcode = 'JX001', message = 'somebody else has it';
  end if;
  return lease_export(c, taken, lease_seconds);
exception when sqlstate 'JX001' then
  return null;
end $$;

-- ClaimExport: the oldest export of any live project that waits for a worker, started; OK without a result when there is
-- none. Crosses projects, so it runs as jeex_system. A candidate that somebody else is taking right now is passed over.
create function claim_export(c call, lease_seconds integer, out verdict text, out detail jsonb, out result exports)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  opened record;
  candidate record;
  stale boolean := true;
begin
  select * into opened from find_reply(c);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  while stale and result.id is null loop
    stale := false;
    for candidate in select w.project_id, w.id from waiting_exports(100) as w loop
      continue when not pg_try_advisory_xact_lock(hashtextextended('export|' || candidate.id, 0));
      result := take_export(c, candidate.project_id, candidate.id, lease_seconds);
      -- Gone while this waited, and others perhaps with it: look again.
      stale := result.id is null;
      exit;
    end loop;
  end loop;
  perform keep_reply(c, result.project_id, null, coalesce(to_jsonb(result), '{}'));
end $$;

-- CompleteExport and FailExport, under the lease. It is lost when its time is over, whether or not anything has noticed, and
-- when the export went back since. Tokens are compared as text: what is no token of ours is a wrong one.
create function end_export(c call, project uuid, export uuid, new_status text, token text, file_path text,
                           file_size_bytes bigint, file_sha256 text, error_message text,
                           out verdict text, out detail jsonb, out result exports)
language plpgsql as $$
declare
  opened record;
begin
  select * into opened from begin_export_write(c, project, export, 'owner');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  result := opened.old;
  verdict := case
    when opened.status = 'PROCESSING' and result.lease_token::text = token then 'OK'
    -- A PENDING one that was ever written since it was made has had a worker.
    when opened.status = 'PROCESSING' or (opened.status = 'PENDING' and result.row_version > 1) then 'LEASE_LOST'
    else 'ILLEGAL_TRANSITION'
  end;
  if verdict = 'ILLEGAL_TRANSITION' then
    detail := jsonb_build_object('from', opened.status, 'to', new_status);
  end if;
  if verdict <> 'OK' then
    result := null;
    return;
  end if;
  result.status := new_status;
  result.file_path := coalesce(end_export.file_path, '');
  result.file_size_bytes := coalesce(end_export.file_size_bytes, 0);
  result.file_sha256 := coalesce(end_export.file_sha256, '');
  result.error_message := coalesce(end_export.error_message, '');
  result.complete_time := clock_timestamp();
  result := save_export(c, result, 'EXPORT_' || new_status);
  perform keep_reply(c, project, null, to_jsonb(result));
end $$;

-- Counts a download; under the project's lock, so that none is lost.
create function record_download(c call, project uuid, export uuid,
                                out verdict text, out detail jsonb, out result exports)
language plpgsql as $$
declare
  opened record;
begin
  select * into opened from begin_export_write(c, project, export, 'member');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict = 'OK' and opened.status <> 'COMPLETED' then
    verdict := 'EXPORT_NOT_READY';
    detail := jsonb_build_object('status', opened.status);
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  result := opened.old;
  result.download_count := result.download_count + 1;
  result := save_export(c, result, 'EXPORT_DOWNLOADED');
  perform keep_reply(c, project, null, to_jsonb(result));
end $$;

grant execute on function create_export, begin_export_write, start_export, claim_export, end_export, record_download
  to jeex_app;
grant execute on function export_status, save_export, lease_export to jeex_app, jeex_system;
grant execute on function waiting_exports, take_export to jeex_system;
alter function waiting_exports owner to jeex_system;
alter function take_export owner to jeex_system;
alter function claim_export owner to jeex_system;

-- ==== Erasure ====

-- Who was erased: ids only, and no foreign key, since it outlives what it is about, and holds ids that are not here (any
-- more, or yet). A copy kept outside the database is applied again to a restored one.
create table erasures (
  user_id uuid primary key,
  erase_time timestamptz not null,
  caller text not null,
  correlation_id uuid not null
);
grant select, insert on erasures to jeex_system;

-- Locks a user's row, then its projects in id order: whatever is judged of them after that stays true.
create function lock_user(target uuid) returns users language plpgsql as $$
declare
  locked users;
  project uuid;
begin
  select * into locked from users u where u.id = target for no key update;
  for project in select m.project_id from project_members m where m.user_id = target order by m.project_id loop
    perform scope_to(project);
    perform from projects p where p.id = project for no key update;
  end loop;
  return locked;
end $$;

-- Erases a user by an entry of the ledger, sole owner or not: nothing personal stays, memberships end, stored replies by and
-- about it go, the id stays as author. The entry is kept as it is, also of an id that is not here; an id's first one stays.
-- Answers ERASED, ALREADY_ERASED or UNKNOWN. Runs with the rights of who calls it: delete_user's, which asks the rules
-- first, or the owner's, who applies the ledger.
create function erase_user(c call, entry erasures) returns text language plpgsql as $$
declare
  found_user users := lock_user(entry.user_id);
  live boolean := found_user.id is not null and found_user.delete_time is null;
  member project_members;
begin
  if live then
    for member in select m.* from project_members m where m.user_id = entry.user_id order by m.project_id loop
      perform scope_to(member.project_id);
      delete from project_members m where m.project_id = member.project_id and m.user_id = entry.user_id;
      perform record_change(c, member.project_id, 'MEMBER_REMOVED', entry.user_id);
    end loop;
    update users u set email = null, name = null, profile = null, profile_mac = null, last_login_time = null,
      delete_time = entry.erase_time, update_time = clock_timestamp(), row_version = u.row_version + 1,
      caller = c.caller, correlation_id = c.correlation_id
    where u.id = entry.user_id;
    delete from requests r where r.user_id = entry.user_id or r.actor_id = entry.user_id;
  end if;
  insert into erasures select entry.* on conflict (user_id) do nothing;
  return case when live then 'ERASED' when found_user.id is null then 'UNKNOWN' else 'ALREADY_ERASED' end;
end $$;

-- Erases a user by the rules: LAST_OWNER while it is the sole owner of a live project. A repeated request is answered before
-- the actor is asked for: it has erased itself.
create function delete_user(c call, target uuid, out verdict text, out detail jsonb, out result users)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  opened record;
  project uuid;
begin
  select * into opened from find_reply(c);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict = 'OK' then
    verdict := enter_user(target, c.actor, false);
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  -- Every lock is taken before anything is judged, so that two last owners cannot leave past each other.
  result := lock_user(target);
  if result.id is null then
    verdict := 'USER_NOT_FOUND';
    return;
  end if;
  select p.id into project from projects p join project_members m on m.project_id = p.id
  where m.user_id = target and m.role = 'OWNER' and p.owners = 1 and p.delete_time is null limit 1;
  if found then
    verdict := 'LAST_OWNER';
    detail := jsonb_build_object('project_id', project);
    result := null;
    return;
  end if;
  perform erase_user(c, row(target, clock_timestamp(), c.caller, c.correlation_id)::erasures);
  select * into result from users u where u.id = target;
  perform keep_reply(c, null, null, to_jsonb(result));
end $$;

grant execute on function lock_user, erase_user to jeex_system;
grant execute on function delete_user to jeex_app;
alter function delete_user owner to jeex_system;

-- ==== Purging ====

-- What stays of a purged project: that it was, and when it went.
create table purges (
  project_id uuid primary key,
  purge_time timestamptz not null default clock_timestamp(),
  revision bigint not null,
  chain bytea not null,
  caller text not null,
  correlation_id uuid not null
);
grant select, insert on purges to jeex_system;

-- Removes at most `most` rows of one table of the entered project, children first. Returns how many: 0 when none is left.
-- Versions go newest first, since one may have been restored from an older one; runs forget their parents before.
create function remove_rows(project uuid, most integer) returns bigint
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  step record;
  removed bigint;
begin
  for step in
    select * from (values
      (1, 'delete from %1$I', 'changes', ''), (2, 'delete from %1$I', 'exports', ''),
      (3, 'delete from %1$I', 'document_versions', 'order by document_type desc, version desc'),
      (4, 'delete from %1$I', 'documents', ''), (5, 'delete from %1$I', 'document_bodies', ''),
      (6, 'delete from %1$I', 'execution_payloads', ''),
      (7, 'update %1$I set parent_execution_id = null', 'agent_executions', 'and parent_execution_id is not null'),
      (8, 'delete from %1$I', 'agent_executions', ''), (9, 'delete from %1$I', 'execution_counts', ''),
      (10, 'delete from %1$I', 'project_members', ''), (11, 'delete from %1$I', 'requests', '')
    ) as s (place, action, target, which) order by place
  loop
    execute format(step.action || ' where ctid = any (array(select ctid from %1$I where project_id = $1 %2$s limit $2))',
                   step.target, step.which) using project, most;
    get diagnostics removed = row_count;
    if removed > 0 then
      return removed;
    end if;
  end loop;
  return 0;
end $$;

-- Removes rows of a locked project whose time has come for three seconds at most, and the project with its last one. A large
-- one takes several calls; nobody sees it meanwhile. The record of the purge stays.
create function purge_rows(c call, project uuid) returns purges
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  purged purges;
  until timestamptz := clock_timestamp() + interval '3 seconds';
begin
  perform scope_to(project);
  insert into purges (project_id, revision, chain, caller, correlation_id)
  select p.id, p.revision, p.chain, c.caller, c.correlation_id from projects p where p.id = project
  on conflict (project_id) do nothing;
  select * into purged from purges t where t.project_id = project;
  while clock_timestamp() < until loop
    if remove_rows(project, 2000) = 0 then
      delete from projects t where t.id = project;
      exit;
    end if;
  end loop;
  return purged;
end $$;

-- Purges a project, deleted or not: from now on there is none, and what is left of a large one the sweeper removes. A
-- repeated request is answered first: the project it was about is gone.
create function purge_project(c call, project uuid, out verdict text, out detail jsonb, out result purges)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  opened record;
begin
  select * into opened from find_reply(c);
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict = 'OK' then
    select e.verdict into verdict from enter_project(project, c.actor, 'owner', with_deleted => true, lock => true) as e;
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  update projects p set delete_time = coalesce(p.delete_time, clock_timestamp()), purge_time = clock_timestamp()
  where p.id = project;
  result := purge_rows(c, project);
  perform keep_reply(c, null, null, to_jsonb(result));
end $$;

grant execute on function purge_project to jeex_app;
grant execute on function remove_rows, purge_rows to jeex_system;
alter function remove_rows owner to jeex_system;
alter function purge_rows owner to jeex_system;
alter function purge_project owner to jeex_system;

-- ==== Sweeping ====
-- What the service ends, purges and forgets by itself, when its time has come.

-- The service's own hand, in the name of what it touches. Its functions go by now(), the time of the call: unlike
-- clock_timestamp() it lets an index answer what is due.
create function sweeper(correlation uuid) returns call language sql immutable parallel safe
return row(null, 'jeex-persistence', correlation, 'sweep', null, null, null)::call;

-- Ends what is due in a locked and entered project: at most `most` of each kind. Returns how many.
create function sweep_project(project uuid, most integer) returns integer language plpgsql as $$
declare
  run agent_executions;
  export exports;
  swept integer := 0;
begin
  for run in select * from agent_executions e
    where e.project_id = project and e.status = 'RUNNING' and e.lease_expire_time <= now()
    order by e.lease_expire_time limit most
  loop
    run.status := 'TIMED_OUT';
    run := save_execution(sweeper(run.correlation_id), run, 'EXECUTION_TIMED_OUT');
    swept := swept + 1;
  end loop;
  for run in select * from agent_executions e
    where e.project_id = project and e.status = 'PENDING' and e.create_time <= now() - interval '24 hours'
    order by e.create_time limit most
  loop
    run.status := 'CANCELLED';
    run.cancel_reason := 'nobody started it within 24 hours';
    run := save_execution(sweeper(run.correlation_id), run, 'EXECUTION_CANCELLED');
    swept := swept + 1;
  end loop;
  for export in select * from exports e
    where e.project_id = project and e.status = 'PROCESSING' and e.lease_expire_time <= now()
    order by e.lease_expire_time limit most
  loop
    update exports e set status = 'PENDING', lease_token = null, lease_expire_time = null, row_version = e.row_version + 1
    where e.project_id = project and e.id = export.id;
    perform record_change(sweeper(export.correlation_id), project, 'EXPORT_RETURNED', export.id);
    swept := swept + 1;
  end loop;
  return swept;
end $$;

-- Ends what is due in one project, at most `most` of each kind: leases that ran out, runs that waited for 24 hours,
-- exports whose worker has gone. Answers how many: 0 when nothing is due that no other sweeper is at; and what went wrong
-- in a project that was left for later. Crosses projects, so it runs as jeex_system; one project a call, so that no
-- writer waits for the others' projects.
create function sweep(most integer, out swept integer, out failure text)
language plpgsql security definer set search_path = jeex, pg_temp set lock_timeout = '500ms' as $$
declare
  due uuid;
begin
  swept := 0;
  for due in
    select found.project_id from (
      (select e.project_id from agent_executions e where e.status = 'RUNNING' and e.lease_expire_time <= now()
       order by e.lease_expire_time limit most)
      union
      (select e.project_id from agent_executions e
       where e.status = 'PENDING' and e.create_time <= now() - interval '24 hours'
       order by e.create_time limit most)
      union
      (select e.project_id from exports e where e.status = 'PROCESSING' and e.lease_expire_time <= now()
       order by e.lease_expire_time limit most)) as found
    order by found.project_id
  loop
    continue when not pg_try_advisory_xact_lock(hashtextextended('sweep|' || due, 0));
    begin
      perform scope_to(due);
      perform from projects p where p.id = due for no key update;
      swept := sweep_project(due, most);
    exception when others then
      -- One project's trouble, such as a writer that holds it for long, must not keep the others waiting.
      failure := format('%s: %s (%s)', due, sqlerrm, sqlstate);
    end;
    exit when swept > 0;
  end loop;
end $$;

-- Purges one project whose time has come, or part of a large one; any of them, so that one that fails does not keep the
-- others. Returns 0 when there is none.
create function purge_due() returns integer
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  due uuid;
begin
  for due in select p.id from projects p where p.purge_time <= now() order by random() limit 20 loop
    continue when not pg_try_advisory_xact_lock(hashtextextended('purge|' || due, 0));
    perform scope_to(due);
    perform from projects p where p.id = due and p.purge_time <= now() for no key update;
    if found then
      perform purge_rows(sweeper(uuidv7()), due);
      return 1;
    end if;
  end loop;
  return 0;
end $$;

-- Forgets replies older than 24 hours, at most `most`. Returns how many.
create function forget_replies(most integer) returns integer
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  forgotten integer;
begin
  delete from requests r where r.ctid = any (array(
    select o.ctid from requests o where o.create_time <= now() - interval '24 hours'
    order by o.create_time limit most for update skip locked));
  get diagnostics forgotten = row_count;
  return forgotten;
end $$;

-- The app too: starting a PROCESSING export whose lease ran out returns it first, as the sweep would have done.
grant execute on function sweeper to jeex_app, jeex_system;
grant execute on function sweep, purge_due, forget_replies to jeex_app;
grant execute on function sweep_project to jeex_system;
alter function sweep owner to jeex_system;
alter function purge_due owner to jeex_system;
alter function forget_replies owner to jeex_system;

-- ==== Retention ====
-- What is kept for a time only: the inputs and outputs of runs that ended long ago (the runs stay), exports that expired long
-- ago, and changes, where a deployment wants that.

-- Where the pass over all projects is, and what passes have removed so far. One row; whoever goes on with the pass locks it.
create table retention (
  id boolean primary key default true,
  place uuid,  -- the project that the pass has reached; null between two passes
  end_time timestamptz,  -- of the last whole pass
  payloads bigint not null default 0,
  exports bigint not null default 0,
  changes bigint not null default 0,
  constraint retention_one_row check (id)
);
grant select, insert, update on retention to jeex_system;
grant select on retention to jeex_monitor;

-- The first id that could have been made at a time.
create function first_id(moment timestamptz) returns uuid language sql immutable strict parallel safe
return rpad(lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0'), 32, '0')::uuid;

-- The payloads of an entered project whose run ended so long ago. They are no older than the run, so that its id finds them
-- without an index of their own.
create function old_payloads(project uuid, age interval) returns setof tid language sql stable as $$
  select p.ctid from execution_payloads p
  join agent_executions e on e.project_id = p.project_id and e.id = p.execution_id
  where p.project_id = project and p.execution_id < first_id(now() - age) and e.complete_time < now() - age
$$;

-- Removes from an entered project at most `most` rows of each kind whose time has passed.
create function retain_project(project uuid, payload_age interval, export_age interval, change_age interval, most integer,
                               out payloads bigint, out exports bigint, out changes bigint)
language plpgsql as $$
declare
  up_to bigint;
begin
  payloads := 0;
  exports := 0;
  changes := 0;
  select max(c.revision) into up_to from (
    select c.revision, c.create_time from changes c where c.project_id = project order by c.revision limit most) as c
  where c.create_time < now() - change_age;
  if up_to is null
     and not exists (select from old_payloads(project, payload_age))
     and not exists (select from exports e where e.project_id = project and e.expire_time < now() - export_age) then
    return;
  end if;
  -- As all who write in a project: its row first.
  perform from projects p where p.id = project for no key update;
  delete from execution_payloads p where p.ctid = any (array(select o from old_payloads(project, payload_age) as o limit most));
  get diagnostics payloads = row_count;
  delete from exports e where e.ctid = any (array(
    select x.ctid from exports x where x.project_id = project and x.expire_time < now() - export_age limit most));
  get diagnostics exports = row_count;
  if exports > 0 then
    update projects p set exports = p.exports - retain_project.exports where p.id = project;
  end if;
  if up_to is not null then
    changes := compact_changes(project, up_to, most);
  end if;
end $$;

-- Goes on with the pass over all projects, for a quarter of a second or until it has removed something from one; a pass begins an hour after the one before it.
-- Answers whether it is to be called again at once, how many rows went, and what went wrong in a project that was left for
-- the next pass. `change_age` null keeps changes for ever. Nobody shortens the ages below a day, and a month for changes.
create function retain(payload_age interval, export_age interval, change_age interval, most integer,
                       out again boolean, out removed bigint, out failure text)
language plpgsql security definer set search_path = jeex, pg_temp set lock_timeout = '500ms' as $$
declare
  pass retention;
  project uuid;
  payloads bigint;
  exports bigint;
  changes bigint;
  until timestamptz := clock_timestamp() + interval '250 milliseconds';
begin
  removed := 0;
  -- A look that finds nothing to do locks nothing, and so writes nothing.
  select r.place is not null or r.end_time <= now() - interval '1 hour' into again from retention r;
  again := coalesce(again, true);
  if not again then
    return;
  end if;
  insert into retention default values on conflict do nothing;
  select * into pass from retention for update skip locked;
  again := found and (pass.place is not null or coalesce(pass.end_time <= now() - interval '1 hour', true));
  if not again then
    return;
  end if;
  pass.place := coalesce(pass.place, '00000000-0000-0000-0000-000000000000');
  while clock_timestamp() < until loop
    select p.id into project from projects p where p.id > pass.place order by p.id limit 1;
    if not found then
      pass.place := null;
      pass.end_time := clock_timestamp();
      again := false;
      exit;
    end if;
    begin
      perform scope_to(project);
      select g.payloads, g.exports, g.changes into payloads, exports, changes
      from retain_project(project, greatest(payload_age, interval '1 day'), greatest(export_age, interval '1 day'),
        case when change_age is not null then greatest(change_age, interval '30 days') end, most) as g;
      pass.payloads := pass.payloads + payloads;
      pass.exports := pass.exports + exports;
      pass.changes := pass.changes + changes;
      removed := payloads + exports + changes;
      -- Where that was all it may take at a time there may be more.
      exit when greatest(payloads, exports, changes) >= most;
    exception when others then
      -- One project's trouble, such as a writer that holds it for long, must not keep the others waiting.
      failure := format('%s: %s (%s)', project, sqlerrm, sqlstate);
    end;
    pass.place := project;
    -- Its row is locked until the commit, and no writer shall wait for the projects behind it.
    exit when removed > 0;
  end loop;
  update retention r set place = pass.place, end_time = pass.end_time, payloads = pass.payloads, exports = pass.exports,
    changes = pass.changes;
end $$;

grant execute on function first_id, old_payloads, retain_project to jeex_system;
grant execute on function retain to jeex_app;
alter function retain_project owner to jeex_system;
alter function retain owner to jeex_system;

-- Everything is handed over.
revoke create on schema jeex from jeex_system;
