-- Sealing: the service encrypts profiles, inputs and outputs before they come here. An envelope is the key's id (2 bytes,
-- big-endian), a nonce (12), the ciphertext, and the tag (16) over it and over what the row is: table, column, project and
-- the last 8 bytes of the row's id. The service draws those 8, so that it can seal a row that has no id yet.

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
create trigger users_known_key_first before insert on users
  for each row when (new.profile is not null) execute function refuse_unknown_key();
create trigger users_known_key_next before update of profile on users
  for each row when (new.profile is not null and new.profile is distinct from old.profile) execute function refuse_unknown_key();
create trigger execution_payloads_known_key before insert or update of data on execution_payloads
  for each row execute function refuse_unknown_key();

-- What is sealed does not compress. The MAC of the plain profile tells whether a profile changes: its envelope always does.
-- Rows of release 0.1.0, whose envelopes name key 0 and hold plain bytes, wait for `keys rotate`.
alter table users alter column profile set storage external, add column profile_mac bytea,
  add constraint users_profile_mac_length check (octet_length(profile_mac) = 32),
  add constraint users_profile_sealed check (
    (profile is null) = (profile_mac is null) and octet_length(profile) >= 30 and sealing_key(profile) <> 0) not valid;
alter table execution_payloads alter column data set storage external,
  add constraint execution_payloads_data_sealed check (octet_length(data) >= 30 and sealing_key(data) <> 0) not valid;
do $$ begin
  alter table users validate constraint users_profile_sealed;
  alter table execution_payloads validate constraint execution_payloads_data_sealed;
exception when check_violation then
  null;  -- a service refuses to start until `keys rotate` has sealed them and validated this
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

drop function create_user, update_user, create_executions;

-- The opening of every write to a user: authorised, replayed if it was done before, and its row locked.
create or replace function begin_user_write(c call, target uuid, out verdict text, out reply jsonb, out old users)
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

grant select on sealing_keys to jeex_app, jeex_system;
grant insert (key_id, secret) on sealing_keys to jeex_app;
grant insert on users to jeex_system;
grant execute on function sealing_key, id_ending, with_current_seal to jeex_app, jeex_system;
grant execute on function register_sealing_key, create_executions, create_user, update_user to jeex_app;
grant execute on function begin_user_write to jeex_system;

grant create on schema jeex to jeex_system;
alter function create_user owner to jeex_system;
alter function update_user owner to jeex_system;
revoke create on schema jeex from jeex_system;
