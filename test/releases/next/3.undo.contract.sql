-- The old column comes back as the first of the three left it: filled from the new one, and kept in step.
alter table exports add column file_path text not null default '';
alter table exports alter file_path set statistics 0;
grant update (file_path) on exports to jeex_app;
update exports set file_path = file_uri;
alter table exports
  add constraint exports_file_path_length check (char_length(file_path) <= 1024),
  add constraint exports_complete check ((status = 'COMPLETED') <= (file_path <> '' and complete_time is not null));
create function keep_file_in_step() returns trigger language plpgsql as $$
begin
  if new.file_uri is distinct from old.file_uri then
    new.file_path := new.file_uri;
  else
    new.file_uri := new.file_path;
  end if;
  return new;
end $$;
create trigger keep_file_in_step before insert or update on exports for each row execute function keep_file_in_step();
alter table exports alter file_uri drop default, alter file_uri drop not null,
  drop constraint exports_file_uri_length, drop constraint exports_complete_uri;
alter table exports
  add constraint exports_file_uri_length check (char_length(file_uri) <= 1024) not valid,
  add constraint exports_complete_uri check (
    (status = 'COMPLETED') <= (file_uri <> '' and complete_time is not null)) not valid;
