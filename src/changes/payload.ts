/** PostgreSQL takes a payload of less than this, in bytes. */
const PAYLOAD_BYTES = 8000;
const ID_BYTES = 16;
/** Four characters hold three bytes. */
const IDS_EACH = Math.floor((((PAYLOAD_BYTES - 1) / 4) * 3) / ID_BYTES);

const bytesOf = (id: string): Buffer => Buffer.from(id.replaceAll('-', ''), 'hex');

const idOf = (hex: string): string => hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

/** The ids of projects as payloads of notifications: as few as hold them. */
export const toPayloads = (projects: readonly string[]): string[] => {
  const payloads: string[] = [];
  for (let from = 0; from < projects.length; from += IDS_EACH) {
    const ids = projects.slice(from, from + IDS_EACH);
    payloads.push(Buffer.concat(ids.map(bytesOf)).toString('base64url'));
  }
  return payloads;
};

/** The ids in a payload, in lower case; none in one that anybody else has made up. */
export const fromPayload = (payload: string): string[] => {
  const bytes = Buffer.from(payload, 'base64url');
  if (bytes.length % ID_BYTES !== 0) return [];
  return Array.from({ length: bytes.length / ID_BYTES }, (_, place) =>
    idOf(bytes.toString('hex', place * ID_BYTES, (place + 1) * ID_BYTES)),
  );
};
