create or replace function enter_project(project uuid, actor uuid, need text, with_deleted boolean default false,
                              lock boolean default false, out verdict text, out project_id uuid, out role text)
language plpgsql volatile parallel unsafe as $$
declare
  seen record;
begin
  perform set_config('jeex.project_id', project::text, true);
  if lock then
    perform from projects p where p.id = project for no key update;
  end if;
  if actor is null then
    select p.id, p.visibility, p.delete_time, p.purge_time, 'OWNER' as role, true as known into seen
    from projects p where p.id = project;
  else
    select p.id, p.visibility, p.delete_time, p.purge_time, m.role, u.known into seen
    from (select exists (select from users where users.id = actor and users.delete_time is null) as known) u
    left join projects p on p.id = project
    left join project_members m on m.project_id = project and m.user_id = actor;
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
