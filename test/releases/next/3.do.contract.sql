-- oldest-release: {1}
-- destructive: exports.file_path, whose values are all in exports.file_uri
-- data-dependent: the trigger writes the new column with every row, and the backfill has written those of before
-- The old column goes, once no release that reads it is left.
alter table exports validate constraint exports_file_uri_length;
alter table exports validate constraint exports_complete_uri;
alter table exports alter file_uri set not null, alter file_uri set default '';
drop trigger keep_file_in_step on exports;
drop function keep_file_in_step;
-- Its checks go with it.
alter table exports drop column file_path;
