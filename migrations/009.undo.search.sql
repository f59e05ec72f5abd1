-- lint-ignore: destructive: what is searched is computed from the documents, and again when 009 is applied
drop function index_heads, search_headline, search_terms, search_vector, search_soft, search_text, search_config;
update documents set search = null, search_version = 0;
