drop function compact_changes;
