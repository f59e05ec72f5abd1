-- Erasure, its ledger, and the walls around what is personal: the app reads ids of users and nothing else of them; the rest
-- goes through functions that run as jeex_system. Those that are given an actor decide by it; user_by_email, users_by_id and
-- list_users answer the system alone, and the service lets nobody else ask them.

-- Who was erased: ids only, and no foreign key, since it outlives what it is about, and holds ids that are not here (any
-- more, or yet). A copy kept outside the database is applied again to a restored one.
create table erasures (
  user_id uuid primary key,
  erase_time timestamptz not null,
  caller text not null,
  correlation_id uuid not null
);
insert into erasures (user_id, erase_time, caller, correlation_id)
select u.id, u.delete_time, u.caller, u.correlation_id from users u where u.delete_time is not null;

-- The planner's statistics are samples of the rows, and would keep an address after its user was erased, and a text after its
-- project was purged: none are kept of what people write, of what is sealed, and of errors that may quote it.
alter table users alter email set statistics 0, alter name set statistics 0, alter profile set statistics 0,
  alter profile_mac set statistics 0, alter last_login_time set statistics 0;
alter index users_email_key alter column 1 set statistics 0;
alter table requests alter request_hash set statistics 0, alter reply set statistics 0;
alter table projects alter name set statistics 0, alter metadata set statistics 0;
alter table document_bodies alter content set statistics 0;
alter table documents alter search set statistics 0;
alter table document_versions alter metadata set statistics 0, alter reason set statistics 0;
alter table agent_executions alter error_message set statistics 0, alter cancel_reason set statistics 0;
alter table execution_payloads alter data set statistics 0;
alter table exports alter error_message set statistics 0, alter file_path set statistics 0;
-- Not by pg_stats, which hides from the owner the tables whose rows a policy guards.
do $$ begin
  perform pg_clear_attribute_stats('jeex', t.relname, a.attname, false) from pg_attribute a join pg_class t on t.oid = a.attrelid
  where t.relnamespace = 'jeex'::regnamespace and a.attstattarget = 0;
end $$;

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

drop function delete_user;

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
create or replace function list_users(email_prefix text, before uuid, most integer) returns setof users
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

-- Makes a user a member, or changes its role. LAST_OWNER for the last owner's step down; at most 1 000 members.
create or replace function set_member(c call, project uuid, target uuid, new_role text,
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

revoke select, insert, update on users from jeex_app;
grant select (id, delete_time) on users to jeex_app;
revoke execute on function begin_user_write from jeex_app;
grant execute on function delete_user, get_user, user_by_email, users_by_id, lock_live_user to jeex_app;

grant select, insert on erasures to jeex_system;
grant execute on function lock_user, erase_user to jeex_system;
alter function record_login security definer set search_path = jeex, pg_temp;

grant create on schema jeex to jeex_system;
alter function delete_user owner to jeex_system;
alter function get_user owner to jeex_system;
alter function user_by_email owner to jeex_system;
alter function users_by_id owner to jeex_system;
alter function lock_live_user owner to jeex_system;
alter function record_login owner to jeex_system;
alter function list_users owner to jeex_system;
revoke create on schema jeex from jeex_system;
