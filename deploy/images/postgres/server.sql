-- What this image adds to `jeex-persistence bootstrap`, as the superuser, in the service's database; it may run again.

-- Nobody comes here over the network; nor shall who comes over the socket.
revoke all on database postgres, template1 from public;

-- With it the record of DDL names the objects.
create schema if not exists audit;
revoke all on schema audit from public;
create extension if not exists pgaudit schema audit;

-- Who reaches the database around the service is on record with every table that is read or written. The service's own
-- statements are on record in its access log, the monitor's read no rows of users.
alter role postgres set pgaudit.log = 'read, write, function, role, ddl';
alter role jeex_owner set pgaudit.log = 'read, write, function, role, ddl';
alter role jeex_readonly set pgaudit.log = 'read, write, function, role, ddl';
alter role jeex_backup set pgaudit.log = 'read, write, function, role, ddl';
