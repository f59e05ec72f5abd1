-- The old column comes back as the first of the three left it: filled from the new one, and kept in step.
alter table exports add column file_path text not null default '';
alter table exports alter file_path set statistics 0;
grant update (file_path) on exports to jeex_app;
update exports set file_path = file_uri;
alter table exports
  add constraint exports_file_path_length check (char_length(file_path) <= 1024),
  add constraint exports_complete check ((status = 'COMPLETED') <= (file_path <> '' and complete_time is not null));
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

alter table exports alter file_uri drop default, alter file_uri drop not null,
  drop constraint exports_file_uri_length, drop constraint exports_complete_uri;
alter table exports
  add constraint exports_file_uri_length check (char_length(file_uri) <= 1024) not valid,
  add constraint exports_complete_uri check (
    (status = 'COMPLETED') <= (file_uri <> '' and complete_time is not null)) not valid;
