-- What writes projects and their members.

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

-- Makes a user a member, or changes its role. LAST_OWNER for the last owner's step down; at most 1 000 members.
create function set_member(c call, project uuid, target uuid, new_role text,
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

grant execute on function create_project, update_project, set_project_deleted, purge_project, set_member, remove_member,
  set_project_quota, list_projects to jeex_app;
grant execute on function remove_rows, purge_rows to jeex_system;

grant create on schema jeex to jeex_system;
alter function create_project owner to jeex_system;
alter function remove_rows owner to jeex_system;
alter function purge_rows owner to jeex_system;
alter function purge_project owner to jeex_system;
alter function list_projects owner to jeex_system;
revoke create on schema jeex from jeex_system;
