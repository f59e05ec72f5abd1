-- What forgets old changes.

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

grant create on schema jeex to jeex_system;
alter function compact_changes owner to jeex_system;
revoke create on schema jeex from jeex_system;
