-- What writes document versions. Versions come from the head's counter under the project's lock: 1, 2, 3, … without a gap.

-- Adds the next version of a document to the entered and locked project. `v` brings what the caller knows of it; its
-- body is there already.
create function add_version(c call, v document_versions) returns document_versions language plpgsql as $$
begin
  insert into documents as d (project_id, document_type, head_version) values (v.project_id, v.document_type, 1)
  on conflict (project_id, document_type) do update set head_version = d.head_version + 1
  returning d.head_version into v.version;
  v.id := uuidv7();
  v.created_by := c.actor;
  v.caller := c.caller;
  v.correlation_id := c.correlation_id;
  v.create_time := clock_timestamp();
  insert into document_versions select (v).*;
  return v;
end $$;

-- Judges entries before anything is written: every expected_version, execution and quota, as if the entries before were
-- there already. The verdict names the entry; `entry_field` is the request's field that holds them, null for a single one.
create function judge_entries(project uuid, document_types text[], sizes bigint[], hashes bytea[], expected integer[],
                              executions uuid[], entry_field text, out verdict text, out detail jsonb)
language plpgsql as $$
declare
  p record;
  entries integer := cardinality(document_types);
  heads jsonb := '{}';
  head integer;
  new_documents bigint := 0;
  new_bytes bigint := 0;
begin
  verdict := 'OK';
  for i in 1 .. entries loop
    head := (heads ->> document_types[i])::integer;
    if head is null then
      select d.head_version into head from documents d where d.project_id = project and d.document_type = document_types[i];
      head := coalesce(head, 0);
      new_documents := new_documents + (head = 0)::int;
    end if;
    heads := heads || jsonb_build_object(document_types[i], head + 1);
    if expected[i] <> head then
      verdict := 'VERSION_CONFLICT';
      detail := jsonb_build_object('current_version', head::text);
    elsif executions[i] is not null and not exists (
        select from agent_executions e where e.project_id = project and e.id = executions[i]) then
      verdict := 'EXECUTION_NOT_FOUND';
      detail := '{}';
    end if;
    if verdict <> 'OK' then
      if entry_field is not null then
        detail := detail || jsonb_build_object('entry', (i - 1)::text, 'field', format('%s[%s]', entry_field, i - 1));
      end if;
      return;
    end if;
    if hashes[i] <> all (hashes[:i - 1])
       and not exists (select from document_bodies b where b.project_id = project and b.sha256 = hashes[i]) then
      new_bytes := new_bytes + sizes[i];
    end if;
  end loop;
  select * into p from projects where id = project;
  if p.documents + new_documents > p.quota_documents or p.versions + entries > p.quota_versions
     or p.content_bytes + new_bytes > p.quota_content_bytes then
    -- A quota below what is used already stops what adds to it, and nothing else.
    select 'QUOTA_EXCEEDED', jsonb_build_object('quota', q.name, 'limit', q.most::text, 'used', q.used::text)
    into verdict, detail
    from (values ('documents', p.quota_documents, p.documents, new_documents),
                 ('versions', p.quota_versions, p.versions, entries::bigint),
                 ('content_bytes', p.quota_content_bytes, p.content_bytes, new_bytes)) as q (name, most, used, more)
    where q.more > 0 and q.used + q.more > q.most limit 1;
    verdict := coalesce(verdict, 'OK');
  end if;
end $$;

-- Appends entries, all or none, to the entered and locked project: bodies once per hash, versions, changes, counters.
create function append_entries(c call, project uuid, document_types text[], contents text[], hashes bytea[],
                               metadatas jsonb[], reasons text[], readabilities double precision[],
                               grammars double precision[], expected integer[], executions uuid[], entry_field text,
                               out verdict text, out detail jsonb, out results document_versions[])
language plpgsql as $$
declare
  judged record;
  sizes bigint[] := array(select octet_length(content) from unnest(contents) with ordinality as u (content, i) order by i);
  v document_versions;
  revision bigint;
  stored_bytes bigint := 0;
  new_documents bigint := 0;
  inserted integer;
begin
  select * into judged from judge_entries(project, document_types, sizes, hashes, expected, executions, entry_field);
  verdict := judged.verdict;
  detail := judged.detail;
  if verdict <> 'OK' then
    return;
  end if;
  select p.revision into revision from projects p where p.id = project;
  for i in 1 .. cardinality(document_types) loop
    insert into document_bodies (project_id, sha256, content, size_bytes) values (project, hashes[i], contents[i], sizes[i])
    on conflict do nothing;
    get diagnostics inserted = row_count;
    stored_bytes := stored_bytes + inserted * sizes[i];
    v := null;
    v.project_id := project;
    v.document_type := document_types[i];
    v.content_sha256 := hashes[i];
    v.size_bytes := sizes[i];
    v.metadata := coalesce(metadatas[i], '{}');
    v.reason := coalesce(reasons[i], '');
    v.readability_score := readabilities[i];
    v.grammar_score := grammars[i];
    v.execution_id := executions[i];
    v.project_revision := revision + i;
    v := add_version(c, v);
    new_documents := new_documents + (v.version = 1)::int;
    results := results || v;
  end loop;
  perform record_changes(c, project, array_fill('VERSION_APPENDED'::text, array[cardinality(document_types)]),
    array(select r.id from unnest(results) as r), document_types, array(select r.version from unnest(results) as r),
    new_documents, cardinality(document_types), stored_bytes);
end $$;

-- AppendVersion and BatchAppendVersions.
create function append_versions(c call, project uuid, document_types text[], contents text[], hashes bytea[],
                                metadatas jsonb[], reasons text[], readabilities double precision[],
                                grammars double precision[], expected integer[], executions uuid[], entry_field text,
                                out verdict text, out detail jsonb, out results document_versions[])
language plpgsql as $$
declare
  opened record;
  appended record;
begin
  select * into opened from begin_write(c, project, 'editor');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    results := array(select r from jsonb_populate_recordset(null::document_versions, opened.reply) as r);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  select * into appended from append_entries(c, project, document_types, contents, hashes, metadatas, reasons,
    readabilities, grammars, expected, executions, entry_field);
  verdict := appended.verdict;
  detail := appended.detail;
  results := appended.results;
  if verdict = 'OK' then
    perform keep_reply(c, project, null, to_jsonb(results));
  end if;
end $$;

-- Going back appends: a new version with the content, metadata and scores of an old one.
create function restore_version(c call, project uuid, document_type text, version integer, reason text, expected integer,
                                out verdict text, out detail jsonb, out result document_versions)
language plpgsql as $$
declare
  opened record;
  head integer;
begin
  select * into opened from begin_write(c, project, 'editor');
  verdict := opened.verdict;
  if verdict = 'REPLAY' then
    verdict := 'OK';
    result := jsonb_populate_record(result, opened.reply);
    return;
  elsif verdict <> 'OK' then
    return;
  end if;
  select d.head_version into head from documents d
  where d.project_id = project and d.document_type = restore_version.document_type;
  if not found then
    verdict := 'DOCUMENT_NOT_FOUND';
    return;
  end if;
  select * into result from document_versions v
  where v.project_id = project and v.document_type = restore_version.document_type and v.version = restore_version.version;
  if not found then
    verdict := 'VERSION_NOT_FOUND';
  elsif expected <> head then
    verdict := 'VERSION_CONFLICT';
    detail := jsonb_build_object('current_version', head::text);
  else
    select * into verdict, detail from judge_entries(project, array[restore_version.document_type], array[0::bigint],
      array[result.content_sha256], array[null::integer], array[null::uuid], null);
  end if;
  if verdict <> 'OK' then
    return;
  end if;
  result.reason := restore_version.reason;
  result.restored_from_version := result.version;
  result.execution_id := null;
  select p.revision + 1 into result.project_revision from projects p where p.id = project;
  result := add_version(c, result);
  perform record_changes(c, project, array['VERSION_APPENDED'], array[result.id], array[result.document_type],
    array[result.version], more_versions => 1);
  perform keep_reply(c, project, null, to_jsonb(result));
end $$;

grant execute on function add_version, judge_entries, append_entries, append_versions, restore_version to jeex_app;
