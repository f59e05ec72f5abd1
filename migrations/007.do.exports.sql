-- What writes exports: a manifest fixed at one revision, worked on under a lease. An expired export stays as it was stored;
-- EXPIRED, and PENDING for a lease that ran out, are what the database's clock makes of it.

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

grant execute on function create_export, begin_export_write, start_export, claim_export, end_export, record_download to jeex_app;
grant execute on function export_status, save_export, lease_export to jeex_app, jeex_system;
grant execute on function waiting_exports, take_export to jeex_system;
-- Starting a PROCESSING export whose lease ran out returns it first, as the sweep would have done.
grant execute on function sweeper to jeex_app;

grant create on schema jeex to jeex_system;
alter function waiting_exports owner to jeex_system;
alter function take_export owner to jeex_system;
alter function claim_export owner to jeex_system;
revoke create on schema jeex from jeex_system;
