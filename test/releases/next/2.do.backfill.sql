-- run: batches
-- batch: exports (project_id, id)
-- Rows that nobody has written since the column came.
update exports set file_uri = file_path where (project_id, id) between ($1, $2) and ($3, $4) and file_uri is null;
