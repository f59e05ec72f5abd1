-- What is kept for a time only goes by itself: payloads of runs that ended long ago, exports that expired long ago and, where a
-- deployment wants that, changes. One pass over the projects an hour, whichever replica makes it.

create table retention (
  id boolean not null default true,
  place uuid,
  end_time timestamp with time zone,
  payloads bigint not null default 0,
  exports bigint not null default 0,
  changes bigint not null default 0,
  constraint retention_one_row check (id),
  constraint retention_pkey primary key (id)
);

create function first_id(moment timestamptz) returns uuid language sql immutable strict parallel safe
return rpad(lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0'), 32, '0')::uuid;

create function old_payloads(project uuid, age interval) returns setof tid language sql stable as $$
  select p.ctid from execution_payloads p
  join agent_executions e on e.project_id = p.project_id and e.id = p.execution_id
  where p.project_id = project and p.execution_id < first_id(now() - age) and e.complete_time < now() - age
$$;

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

revoke all on function first_id(timestamp with time zone) from public;

grant execute on function first_id(timestamp with time zone) to jeex_system;

revoke all on function old_payloads(uuid, interval) from public;

grant execute on function old_payloads(uuid, interval) to jeex_system;

revoke all on function retain(interval, interval, interval, integer) from public;

grant execute on function retain(interval, interval, interval, integer) to jeex_app;

revoke all on function retain_project(uuid, interval, interval, interval, integer) from public;

grant select on table retention to jeex_backup, jeex_monitor;

grant insert, select, update on table retention to jeex_system;

grant create on schema jeex to jeex_system;

alter function retain(interval, interval, interval, integer) owner to jeex_system;

alter function retain_project(uuid, interval, interval, interval, integer) owner to jeex_system;

revoke create on schema jeex from jeex_system;
