-- Takes back 014 retention.
-- Locks retention until its end: reads and writes of it wait (access exclusive).
-- destructive: drops the table retention, which holds how far a pass is and what passes have removed: the next do begins anew

drop function first_id(timestamp with time zone);

drop function old_payloads(uuid, interval);

drop function retain(interval, interval, interval, integer);

drop function retain_project(uuid, interval, interval, interval, integer);

drop table retention;
