/** What stands around a matching word in a headline as the database makes it: characters it first takes out of the text. */
export const HEADLINE_START = '\u0002';
export const HEADLINE_STOP = '\u0003';

/** The longest headline, in characters of text, its marks and escapes not counted. */
const MAX_HEADLINE = 1000;

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
  [HEADLINE_START]: '<b>',
  [HEADLINE_STOP]: '</b>',
};

/** A headline of the database as HTML that is safe to show: matching words in `<b>`, all else escaped. */
export const headlineHtml = (headline: string): string => {
  const characters = [...headline].slice(0, MAX_HEADLINE);
  const open = characters.lastIndexOf(HEADLINE_START) > characters.lastIndexOf(HEADLINE_STOP);
  if (open) characters.push(HEADLINE_STOP);
  return characters.map((character) => ESCAPES[character] ?? character).join('');
};

// What is quoted, a URL, or several minus signs before a word with nothing but what the parser skips between them.
const QUERY_PARTS = /"[^"]*"?|\w+:\/\/([^\s"]+)|(?<![^\s()&|!<"])-[\s()&|!<-]*-/g;

/**
 * A query as `websearch_to_tsquery` is given it. A URL is quoted, without its scheme, which is not indexed: else its
 * punctuation would be taken for operators. Of the minus signs before a word an odd number leaves one and an even number none:
 * each negates the next, and PostgreSQL fails at 33.
 */
export const searchQuery = (query: string): string =>
  query.replace(QUERY_PARTS, (part: string, url?: string) => {
    if (url !== undefined) return `"${url}"`;
    if (part.startsWith('"')) return part;
    return part.split('-').length % 2 === 0 ? '-' : '';
  });

/** Bytes that an appended version's answer has besides what the request brought, at most. */
const ANSWER_BYTES = 600;
const MAX_ANSWER_BYTES = 4 * 1024 * 1024 - 16 * 1024;

/**
 * Whether the answer to a batch fits into one message: it repeats all of the request but the contents.
 * @param requestBytes the encoded size of the request
 * @param contentBytes the sizes of its contents in UTF-8
 */
export const answerFits = (requestBytes: number, contentBytes: readonly number[]): boolean => {
  const contents = contentBytes.reduce((sum, bytes) => sum + bytes, 0);
  return requestBytes - contents + contentBytes.length * ANSWER_BYTES <= MAX_ANSWER_BYTES;
};
