-- destructive: the ledger of who was erased, unless `erasures list` has kept it elsewhere
drop function delete_user, record_login, list_users, get_user, user_by_email, users_by_id, lock_live_user, erase_user, lock_user;

create function record_login(c call, target uuid, out verdict text, out detail jsonb, out result users)
language plpgsql as $$
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

create function delete_user(c call, target uuid, out verdict text, out detail jsonb, out result users)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  opened record;
  project uuid;
  member project_members;
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
  select * into result from users u where u.id = target for no key update;
  if not found then
    verdict := 'USER_NOT_FOUND';
    return;
  end if;
  if result.delete_time is null then
    -- Every lock is taken before anything is judged, so that two last owners cannot leave past each other.
    for project in select m.project_id from project_members m where m.user_id = target order by m.project_id loop
      perform scope_to(project);
      perform from projects p where p.id = project for no key update;
    end loop;
    select p.id into project from projects p join project_members m on m.project_id = p.id
    where m.user_id = target and m.role = 'OWNER' and p.owners = 1 and p.delete_time is null limit 1;
    if found then
      verdict := 'LAST_OWNER';
      detail := jsonb_build_object('project_id', project);
      result := null;
      return;
    end if;
    for member in select m.* from project_members m where m.user_id = target order by m.project_id loop
      perform scope_to(member.project_id);
      delete from project_members m where m.project_id = member.project_id and m.user_id = target;
      perform record_change(c, member.project_id, 'MEMBER_REMOVED', target);
    end loop;
    update users u set email = null, name = null, profile = null, last_login_time = null,
      delete_time = clock_timestamp(), update_time = clock_timestamp(), row_version = u.row_version + 1,
      caller = c.caller, correlation_id = c.correlation_id
    where u.id = target returning * into result;
    delete from requests r where r.user_id = target or r.actor_id = target;
  end if;
  perform keep_reply(c, null, null, to_jsonb(result));
end $$;

create function list_users(email_prefix text, before uuid, most integer) returns setof users
language sql stable as $$
  select u.* from users u
  where (before is null or u.id < before)
    and (email_prefix = '' or (u.delete_time is null and starts_with(casefold(u.email), casefold(email_prefix))))
  order by u.id desc limit most;
$$;

create or replace function set_member(c call, project uuid, target uuid, new_role text,
                           out verdict text, out detail jsonb, out result project_members)
language plpgsql as $$
declare
  opened record;
  counted record;
begin
  -- Users before projects, as everywhere: erasing the user waits for this row's lock, or this finds it erased.
  perform from users u where u.id = target and u.delete_time is null for share;
  select found as target_known into counted;
  select * into opened from begin_write(c, project, 'owner');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  if not counted.target_known then
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

revoke select (id, delete_time) on users from jeex_app;
grant select, insert, update on users to jeex_app;
grant execute on function begin_user_write, record_login, delete_user, list_users to jeex_app;

grant create on schema jeex to jeex_system;
alter function delete_user owner to jeex_system;
revoke create on schema jeex from jeex_system;

alter table users alter email set statistics default, alter name set statistics default, alter profile set statistics default,
  alter profile_mac set statistics default, alter last_login_time set statistics default;
alter index users_email_key alter column 1 set statistics -1;
alter table requests alter request_hash set statistics default, alter reply set statistics default;
alter table projects alter name set statistics default, alter metadata set statistics default;
alter table document_bodies alter content set statistics default;
alter table documents alter search set statistics default;
alter table document_versions alter metadata set statistics default, alter reason set statistics default;
alter table agent_executions alter error_message set statistics default, alter cancel_reason set statistics default;
alter table execution_payloads alter data set statistics default;
alter table exports alter error_message set statistics default, alter file_path set statistics default;
drop table erasures;
