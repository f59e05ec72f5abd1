-- destructive: the secret of stored replies and page tokens, and profile_mac, which `keys rotate` makes anew
drop function create_user, update_user, create_executions;

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
  reply := found_reply.reply;
  if verdict = 'OK' then
    select * into old from users u where u.id = target for no key update;
    if not found then
      verdict := 'USER_NOT_FOUND';
    end if;
  end if;
end $$;

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

grant execute on function create_user, update_user, create_executions to jeex_app;
revoke execute on function begin_user_write from jeex_system;
revoke insert on users from jeex_system;

drop trigger users_known_key_first on users;
drop trigger users_known_key_next on users;
drop trigger execution_payloads_known_key on execution_payloads;
drop function with_current_seal, refuse_unknown_key;
alter table users drop constraint users_profile_sealed, drop column profile_mac,
  alter column profile set storage extended;
alter table execution_payloads drop constraint execution_payloads_data_sealed, alter column data set storage extended;
drop function register_sealing_key, id_ending, sealing_key;
drop table sealing_keys;
