-- What writes users. Lock order everywhere: a user's row, then project rows in id order.

-- Whether two users are members of one project. Crosses projects, so it runs as jeex_system.
create function shares_project(one uuid, other uuid) returns boolean
language sql stable security definer set search_path = jeex, pg_temp
begin atomic
  select exists (select from project_members a join project_members b using (project_id)
                 where a.user_id = one and b.user_id = other);
end;

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
  reply := found_reply.reply;
  if verdict = 'OK' then
    select * into old from users u where u.id = target for no key update;
    if not found then
      verdict := 'USER_NOT_FOUND';
    end if;
  end if;
end $$;

-- Creates a user; EMAIL_TAKEN when a live user has the address in any case of letters.
create function create_user(c call, email text, name text, profile bytea, out verdict text, out detail jsonb, out result users)
language plpgsql as $$
declare
  opened record;
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
  insert into users (email, name, profile, caller, correlation_id)
  values (create_user.email, create_user.name, create_user.profile, c.caller, c.correlation_id)
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
                            out verdict text, out detail jsonb, out result users)
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
  if (coalesce(new_email, result.email), coalesce(new_name, result.name), coalesce(new_profile, result.profile))
     is distinct from (result.email, result.name, result.profile) then
    begin
      update users u set email = coalesce(new_email, u.email), name = coalesce(new_name, u.name),
        profile = coalesce(new_profile, u.profile), update_time = clock_timestamp(), row_version = u.row_version + 1,
        caller = c.caller, correlation_id = c.correlation_id
      where u.id = target returning * into result;
    exception when unique_violation then
      -- Another call took the address after the check above.
      verdict := 'EMAIL_TAKEN';
      return;
    end;
  end if;
  perform keep_reply(c, null, target, to_jsonb(result));
end $$;

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

-- Erases a user: nothing personal stays, memberships end, the id stays as author. LAST_OWNER while it is the sole owner
-- of a live project. A repeated request is answered before the actor is asked for: it has erased itself.
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

-- Users for the system: newest first, before the id `before`, by the start of their address in any case of letters.
create function list_users(email_prefix text, before uuid, most integer) returns setof users
language sql stable
begin atomic
  select u.* from users u
  where (before is null or u.id < before)
    and (email_prefix = '' or (u.delete_time is null and starts_with(casefold(u.email), casefold(email_prefix))))
  order by u.id desc limit most;
end;

grant execute on function shares_project, enter_user, begin_user_write, create_user, update_user, record_login, delete_user,
  list_users to jeex_app;
grant execute on function enter_user to jeex_system;
grant update on users to jeex_system;

grant create on schema jeex to jeex_system;
alter function shares_project owner to jeex_system;
alter function delete_user owner to jeex_system;
revoke create on schema jeex from jeex_system;
