-- oldest-release: {0}
-- An export's file gets a URI where it had a path: the new column stands beside the old one, and a trigger keeps the two in
-- step, so that a release that reads either serves every row. What writes them keeps its signature, and writes the new one.
alter table exports add column file_uri text,
  add constraint exports_file_uri_length check (char_length(file_uri) <= 1024) not valid,
  add constraint exports_complete_uri check (
    (status = 'COMPLETED') <= (file_uri <> '' and complete_time is not null)) not valid;
alter table exports alter file_uri set statistics 0;
grant update (file_uri) on exports to jeex_app;

-- Who names no URI writes the path: a call that does not know the column, or read the row before the backfill came to it.
create function keep_file_in_step() returns trigger language plpgsql as $$
begin
  if new.file_uri <> coalesce(old.file_uri, old.file_path, '') then
    new.file_path := new.file_uri;
  else
    new.file_uri := new.file_path;
  end if;
  return new;
end $$;
create trigger keep_file_in_step before insert or update on exports for each row execute function keep_file_in_step();

-- It takes either column, since a call that began before this migration may come here from the function as it was, and
-- answers what was stored: both.
create or replace function save_export(c call, e exports, kind text) returns exports language plpgsql as $$
begin
  e.row_version := e.row_version + 1;
  if e.status <> 'PROCESSING' then
    e.lease_token := null;
    e.lease_expire_time := null;
  end if;
  update exports x set status = e.status, file_path = e.file_path, file_uri = e.file_uri,
    file_size_bytes = e.file_size_bytes, file_sha256 = e.file_sha256, error_message = e.error_message,
    download_count = e.download_count, complete_time = e.complete_time, lease_token = e.lease_token,
    lease_expire_time = e.lease_expire_time, row_version = e.row_version
  where x.project_id = e.project_id and x.id = e.id returning x.* into e;
  perform record_change(c, e.project_id, kind, e.id);
  return e;
end $$;

create or replace function end_export(c call, project uuid, export uuid, new_status text, token text, file_path text,
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
  result.file_uri := coalesce(end_export.file_path, '');
  result.file_size_bytes := coalesce(end_export.file_size_bytes, 0);
  result.file_sha256 := coalesce(end_export.file_sha256, '');
  result.error_message := coalesce(end_export.error_message, '');
  result.complete_time := clock_timestamp();
  result := save_export(c, result, 'EXPORT_' || new_status);
  perform keep_reply(c, project, null, to_jsonb(result));
end $$;

-- An owner replaces a function of jeex_system's in its name.
grant create on schema jeex to jeex_system;
set local role jeex_system;
create or replace function find_reply(c call, out verdict text, out reply jsonb)
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  stored record;
  asker uuid := coalesce(c.actor, '00000000-0000-0000-0000-000000000000');
begin
  verdict := 'OK';
  if c.request_id is null then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended(concat_ws('|', c.request_id, c.rpc, c.caller, asker), 0));
  select r.request_hash, r.reply into stored from requests r
  where r.request_id = c.request_id and r.rpc = c.rpc and r.caller = c.caller and r.actor_id = asker
    and r.create_time > clock_timestamp() - interval '24 hours';
  if not found then
    return;
  end if;
  if stored.request_hash <> c.request_hash then
    verdict := 'REQUEST_ID_REUSED';
    return;
  end if;
  verdict := 'REPLAY';
  reply := convert_from(crypto.decrypt(stored.reply, c.reply_key, 'aes-cbc/pad:pkcs'), 'UTF8')::jsonb;
  -- Kept before there was such a column.
  if reply ? 'file_path' then
    reply := jsonb_build_object('file_uri', reply -> 'file_path') || reply;
  end if;
end $$;
reset role;
revoke create on schema jeex from jeex_system;
