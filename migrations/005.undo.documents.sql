drop function restore_version, append_versions, append_entries, judge_entries, add_version;
