-- What writes agents' runs, and the sweep that ends what nobody ends. A run is recorded by one change, EXECUTION_CREATED,
-- whatever its status; each step from there to another status is one more.

-- Oldest first, for who claims without naming agents.
create index executions_pending_oldest on agent_executions (id) where status = 'PENDING';
-- What refers to a row that a purge removes: without these it looks through all of the project for each, and 30 000
-- versions took 21 s instead of 1.7 s.
create index executions_parent on agent_executions (project_id, parent_execution_id) where parent_execution_id is not null;
create index document_versions_execution on document_versions (project_id, execution_id) where execution_id is not null;
create index document_versions_restored on document_versions (project_id, document_type, restored_from_version)
  where restored_from_version is not null;
create index document_versions_body on document_versions (project_id, content_sha256);
create index requests_age on requests (create_time);

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
-- arrays are its parallels, null where an entry has no such thing. RUNNING entries bring lease_seconds.
create function create_executions(c call, project uuid, entries jsonb, lease_seconds integer[], input_types text[],
                                  inputs bytea[], output_types text[], outputs bytea[], entry_field text,
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
      'project_id', project, 'id', uuidv7(), 'correlation_id', coalesce(e.entry ->> 'correlation_id', c.correlation_id::text),
      'created_by', c.actor, 'caller', c.caller, 'create_time', moment, 'update_time', moment, 'row_version', 1,
      'project_revision', revision + e.place) || case when e.entry ->> 'status' = 'RUNNING' then jsonb_build_object(
      'start_time', coalesce((e.entry ->> 'start_time')::timestamptz, moment), 'lease_token', gen_random_uuid(),
      'lease_expire_time', moment + make_interval(secs => e.seconds)) else '{}' end)
    from rows from (jsonb_array_elements(entries), unnest(lease_seconds)) with ordinality as e (entry, seconds, place)
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

grant execute on function judge_executions, create_executions, begin_execution_write, start_execution, claim_execution,
  heartbeat_execution, complete_execution, end_execution, sweep, purge_due, forget_replies to jeex_app;
grant execute on function judge_lease, save_execution, lease_execution to jeex_app, jeex_system;
grant execute on function pending_executions, take_execution, sweeper, sweep_project to jeex_system;

grant create on schema jeex to jeex_system;
alter function pending_executions owner to jeex_system;
alter function take_execution owner to jeex_system;
alter function claim_execution owner to jeex_system;
alter function sweep owner to jeex_system;
alter function purge_due owner to jeex_system;
alter function forget_replies owner to jeex_system;
revoke create on schema jeex from jeex_system;
