-- Entering a project, recording changes, replaying requests: what every statement is built from. `set_config` on
-- jeex.project_id stands in this migration only.

-- Who may enter: exactly one row. The verdict is 'OK' or the reason of the refusal; unless it is 'OK', project_id is
-- null and the scope is empty. `need` is reader (any role, or anyone while PUBLIC_READ), member, editor or owner; a null
-- actor is the system, an owner of every project. `with_deleted` lets owners into a deleted project. `lock` takes the
-- project's row lock first, so that the verdict and all that follows see every write before this one: writers of one
-- project queue here, and nowhere else.
create function enter_project(project uuid, actor uuid, need text, with_deleted boolean default false,
                              lock boolean default false, out verdict text, out project_id uuid, out role text)
language plpgsql volatile parallel unsafe as $$
declare
  seen record;
begin
  perform set_config('jeex.project_id', project::text, true);
  if lock then
    perform from projects p where p.id = project for no key update;
  end if;
  if actor is null then
    select p.id, p.visibility, p.delete_time, p.purge_time, 'OWNER' as role, true as known into seen
    from projects p where p.id = project;
  else
    select p.id, p.visibility, p.delete_time, p.purge_time, m.role, u.known into seen
    from (select exists (select from users where users.id = actor and users.delete_time is null) as known) u
    left join projects p on p.id = project
    left join project_members m on m.project_id = project and m.user_id = actor;
  end if;
  role := seen.role;
  verdict := case
    when not seen.known then 'ACTOR_UNKNOWN'
    when seen.id is null or seen.purge_time <= clock_timestamp() then 'PROJECT_NOT_FOUND'
    when seen.delete_time is not null and seen.role is distinct from 'OWNER' then 'PROJECT_NOT_FOUND'
    when seen.delete_time is not null and not with_deleted then 'PROJECT_DELETED'
    when seen.role is null and seen.visibility <> 'PUBLIC_READ' then 'PROJECT_NOT_FOUND'
    when need = 'reader' then 'OK'
    when need = 'member' and seen.role is not null then 'OK'
    when need = 'editor' and seen.role in ('EDITOR', 'OWNER') then 'OK'
    when need = 'owner' and seen.role = 'OWNER' then 'OK'
    else 'ROLE_REQUIRED'
  end;
  if verdict = 'OK' then
    project_id := project;
  else
    perform set_config('jeex.project_id', '', true);
  end if;
end $$;

-- Sets the scope without asking: for the definer functions, which have decided by themselves.
create function scope_to(project uuid) returns void language sql volatile
begin atomic
  select set_config('jeex.project_id', project::text, true);
end;

-- What a change's chain is made of: the previous chain, then the change's fields in the order of the contract, one a
-- line, absent ones empty, the time in microseconds since 1970. Anyone who has the changes can compute it again.
create function chain_link(previous bytea, c changes) returns bytea language sql immutable parallel safe
return sha256(previous || convert_to(concat_ws(e'\n', c.project_id, c.revision, c.kind, coalesce(c.resource_id::text, ''),
  coalesce(c.document_type, ''), coalesce(c.version::text, ''), coalesce(c.actor_id::text, ''), c.caller, c.correlation_id,
  (extract(epoch from c.create_time) * 1000000)::bigint), 'UTF8'));

-- Records changes of the entered project, in the order of the arrays, and raises its revision by one for each. The caller
-- holds the project's row lock. Returns the first of the new revisions. What the
-- changes add to the project's usage is counted in the same update.
create function record_changes(c call, project uuid, kinds text[], resources uuid[], document_types text[], versions integer[],
                               more_documents bigint default 0, more_versions bigint default 0, more_bytes bigint default 0)
returns bigint language plpgsql as $$
declare
  head record;
  link changes;
  links changes[] := '{}';
begin
  select p.revision, p.chain into strict head from projects p where p.id = project;
  link.project_id := project;
  link.actor_id := c.actor;
  link.caller := c.caller;
  link.correlation_id := c.correlation_id;
  link.create_time := clock_timestamp();
  link.chain := head.chain;
  for i in 1 .. cardinality(kinds) loop
    link.revision := head.revision + i;
    link.kind := kinds[i];
    link.resource_id := resources[i];
    link.document_type := document_types[i];
    link.version := versions[i];
    link.chain := chain_link(link.chain, link);
    links := links || link;
  end loop;
  insert into changes select l.* from unnest(links) as l;
  update projects p set revision = link.revision, chain = link.chain, documents = p.documents + more_documents,
    versions = p.versions + more_versions, content_bytes = p.content_bytes + more_bytes
  where p.id = project;
  return head.revision + 1;
end $$;

-- The same for one change of a resource that is no document.
create function record_change(c call, project uuid, kind text, resource uuid default null) returns bigint
language sql volatile
return record_changes(c, project, array[kind], array[resource], array[null::text], array[null::integer]);

-- Looks a request id up: 'OK' to go on, 'REPLAY' with the reply to give again, or 'REQUEST_ID_REUSED'. The lock makes
-- parallel calls with one id wait for the first, whose reply the next statement then sees. Ids are kept for 24 hours.
create function find_reply(c call, out verdict text, out reply jsonb)
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
end $$;

-- Keeps the reply of a successful request, sealed with the request's own key, until its project or user goes.
create function keep_reply(c call, project uuid, about_user uuid, reply jsonb) returns void
language plpgsql security definer set search_path = jeex, pg_temp as $$
begin
  if c.request_id is null then
    return;
  end if;
  insert into requests (request_id, rpc, caller, actor_id, request_hash, reply, project_id, user_id)
  values (c.request_id, c.rpc, c.caller, coalesce(c.actor, '00000000-0000-0000-0000-000000000000'), c.request_hash,
          crypto.encrypt(convert_to(reply::text, 'UTF8'), c.reply_key, 'aes-cbc/pad:pkcs'), project, about_user)
  on conflict (request_id, rpc, caller, actor_id) do update
  set request_hash = excluded.request_hash, reply = excluded.reply, project_id = excluded.project_id,
      user_id = excluded.user_id, create_time = excluded.create_time;
end $$;

-- The opening of every write in a project: authorised under the project's lock, then replayed if it was done before.
-- The verdict is 'OK' (go on), 'REPLAY' (answer from `reply`) or the reason of the refusal.
create function begin_write(c call, project uuid, need text, with_deleted boolean default false,
                            out verdict text, out role text, out reply jsonb)
language plpgsql as $$
declare
  scope record;
  found_reply record;
begin
  select * into scope from enter_project(project, c.actor, need, with_deleted, lock => true);
  verdict := scope.verdict;
  role := scope.role;
  if verdict = 'OK' and c.request_id is not null then
    select * into found_reply from find_reply(c);
    verdict := found_reply.verdict;
    reply := found_reply.reply;
  end if;
end $$;

-- Whether the actor of a call that touches no project may act: null for "yes", or the reason.
create function refuse_actor(actor uuid) returns text language sql stable parallel safe
return case when actor is null or exists (select from users where id = actor and delete_time is null) then null
       else 'ACTOR_UNKNOWN' end;

grant execute on function legal_transition, enter_project, chain_link, record_changes, record_change, begin_write, refuse_actor
  to jeex_app, jeex_system;
grant execute on function find_reply, keep_reply to jeex_app;
grant execute on function scope_to to jeex_system;

-- The table of replies is the definer functions' alone. An owner grants before it hands a function over.
grant create on schema jeex to jeex_system;
alter function find_reply owner to jeex_system;
alter function keep_reply owner to jeex_system;
revoke create on schema jeex from jeex_system;
