-- oldest-release: {1}
-- destructive: exports.file_path, whose values are all in exports.file_uri
-- data-dependent: the trigger writes the new column with every row, and the backfill has written those of before
-- The old column goes, once no release that reads it is left.
alter table exports validate constraint exports_file_uri_length;
alter table exports validate constraint exports_complete_uri;
alter table exports alter file_uri set not null, alter file_uri set default '';

create or replace function save_export(c call, e exports, kind text) returns exports language plpgsql as $$
begin
  e.row_version := e.row_version + 1;
  if e.status <> 'PROCESSING' then
    e.lease_token := null;
    e.lease_expire_time := null;
  end if;
  update exports x set status = e.status, file_uri = e.file_uri, file_size_bytes = e.file_size_bytes,
    file_sha256 = e.file_sha256, error_message = e.error_message, download_count = e.download_count,
    complete_time = e.complete_time, lease_token = e.lease_token, lease_expire_time = e.lease_expire_time,
    row_version = e.row_version
  where x.project_id = e.project_id and x.id = e.id returning x.* into e;
  perform record_change(c, e.project_id, kind, e.id);
  return e;
end $$;

drop trigger keep_file_in_step on exports;
drop function keep_file_in_step;
-- Its checks go with it.
alter table exports drop column file_path;
