-- Full text over the heads: the first 256 KiB of each, in the project's language. `documents.search` is made in the
-- background, from the head that `search_version` names; a search makes it on the fly where it is older than the head.

-- The text search configuration of a BCP 47 language tag, by its primary subtag; `simple` where PostgreSQL has none.
create function search_config(language text) returns regconfig language sql immutable parallel safe
return case lower(split_part(language, '-', 1))
  when 'ar' then 'pg_catalog.arabic'
  when 'hy' then 'pg_catalog.armenian'
  when 'eu' then 'pg_catalog.basque'
  when 'ca' then 'pg_catalog.catalan'
  when 'da' then 'pg_catalog.danish'
  when 'nl' then 'pg_catalog.dutch'
  when 'en' then 'pg_catalog.english'
  when 'et' then 'pg_catalog.estonian'
  when 'fi' then 'pg_catalog.finnish'
  when 'fr' then 'pg_catalog.french'
  when 'de' then 'pg_catalog.german'
  when 'el' then 'pg_catalog.greek'
  when 'hi' then 'pg_catalog.hindi'
  when 'hu' then 'pg_catalog.hungarian'
  when 'id' then 'pg_catalog.indonesian'
  when 'ga' then 'pg_catalog.irish'
  when 'it' then 'pg_catalog.italian'
  when 'lt' then 'pg_catalog.lithuanian'
  when 'ne' then 'pg_catalog.nepali'
  when 'nb' then 'pg_catalog.norwegian'
  when 'nn' then 'pg_catalog.norwegian'
  when 'no' then 'pg_catalog.norwegian'
  when 'pt' then 'pg_catalog.portuguese'
  when 'ro' then 'pg_catalog.romanian'
  when 'ru' then 'pg_catalog.russian'
  when 'sr' then 'pg_catalog.serbian'
  when 'es' then 'pg_catalog.spanish'
  when 'sv' then 'pg_catalog.swedish'
  when 'ta' then 'pg_catalog.tamil'
  when 'tr' then 'pg_catalog.turkish'
  when 'yi' then 'pg_catalog.yiddish'
  else 'pg_catalog.simple'
end::regconfig;

-- The first bytes of a content, at most `most`, that end with a whole character.
create function search_text(content text, most integer default 262144) returns text
language plpgsql immutable parallel safe as $$
declare
  bytes bytea;
begin
  if octet_length(content) <= most then
    return content;
  end if;
  -- A character has at most four bytes, so this is enough, and spares the rest of a large content.
  bytes := convert_to(left(content, most), 'UTF8');
  while octet_length(bytes) > most and (get_byte(bytes, most) & 192) = 128 loop
    most := most - 1;
  end loop;
  return convert_from(substring(bytes from 1 for most), 'UTF8');
end $$;

-- A text that PostgreSQL's parser reads in time that grows with its length alone: on a long run without a space, or an
-- unclosed tag, it grows with the square, to minutes for 256 KiB.
create function search_soft(content text) returns text language sql immutable parallel safe
return regexp_replace(replace(content, '<', ' '), '(\S{64})', '\1 ', 'g');

-- The vector a content is found by. A vector holds 1 MB of lexemes; 256 KiB of the oddest words make 0.8 MB. What does
-- not fit all the same is found by nothing, and stands in nobody's way.
create function search_vector(language text, content text, most integer default 262144) returns tsvector
language plpgsql immutable parallel unsafe as $$
begin
  return to_tsvector(search_config(language), search_soft(search_text(content, most)));
exception when program_limit_exceeded then
  return '';
end $$;

-- The words of a query as its configuration knows them, any of them. What takes time with the number of words, or with
-- every pair of them, works with this.
create function search_terms(language text, query text) returns tsquery language sql immutable parallel safe
return (select coalesce(string_agg('''' || replace(replace(t.lexeme, '\', '\\'), '''', '''''') || '''', ' | '), '')::tsquery
        from unnest(to_tsvector(search_config(language), query)) as t);

-- Excerpts of a content that matches: from the first part of it that matches as a whole, else the first that has one of
-- the terms. The search for excerpts takes seconds in a large and repetitive text, so it gets a few KiB of it.
create function search_headline(language text, content text, query tsquery, terms tsquery, options text) returns text
language plpgsql immutable parallel safe as $$
declare
  config regconfig := search_config(language);
  part text;
  best text;
  vector tsvector;
begin
  for start in 1 .. greatest(char_length(content), 1) by 8000 loop
    part := substr(content, start, 8200);  -- overlaps, so that no word is cut in every part
    vector := to_tsvector(config, search_soft(part));
    if vector @@ query then
      best := part;
      exit;
    elsif best is null and vector @@ terms then
      best := part;
    end if;
  end loop;
  return ts_headline(config, coalesce(best, left(content, 8200)), terms, options);
end $$;

-- Makes the vectors of at most `most` heads that have none of their own yet, of any projects, for three seconds at most;
-- returns how many. In no order, so that no head keeps the others waiting for ever. Only one
-- such call works at a time. Vectors are made before the first row is locked, and a row that is locked is left for the
-- next call, so appending waits for one short update at most, and never in a circle.
create function index_heads(most integer) returns integer
language plpgsql security definer set search_path = jeex, pg_temp as $$
declare
  projects uuid[];
  types text[];
  heads integer[];
  languages text[];
  vectors tsvector[] := '{}';
  updated integer;
  indexed integer := 0;
  until timestamptz := clock_timestamp() + interval '3 seconds';
begin
  if not pg_try_advisory_xact_lock(hashtextextended('jeex.index_heads', 0)) then
    return 0;
  end if;
  select array_agg(s.project_id), array_agg(s.document_type), array_agg(s.head_version), array_agg(s.language)
  into projects, types, heads, languages
  from (select d.project_id, d.document_type, d.head_version, p.language
        from documents d join projects p on p.id = d.project_id
        where d.search_version <> d.head_version order by random() limit most) as s;
  for i in 1 .. coalesce(cardinality(projects), 0) loop
    exit when clock_timestamp() > until;
    perform scope_to(projects[i]);
    vectors[i] := (select search_vector(languages[i], b.content)
                   from document_versions v
                   join document_bodies b on b.project_id = v.project_id and b.sha256 = v.content_sha256
                   where v.project_id = projects[i] and v.document_type = types[i] and v.version = heads[i]);
  end loop;
  for i in 1 .. cardinality(vectors) loop
    perform scope_to(projects[i]);
    update documents d set search = vectors[i], search_version = heads[i]
    from (select s.project_id, s.document_type from documents s
          where s.project_id = projects[i] and s.document_type = types[i] and s.head_version = heads[i]
          for update skip locked) as free
    where d.project_id = free.project_id and d.document_type = free.document_type;
    get diagnostics updated = row_count;
    indexed := indexed + updated;
  end loop;
  return indexed;
end $$;

grant execute on function search_config, search_text, search_soft, search_vector to jeex_app, jeex_system;
grant execute on function search_terms, search_headline, index_heads to jeex_app;

grant create on schema jeex to jeex_system;
alter function index_heads owner to jeex_system;
revoke create on schema jeex from jeex_system;
