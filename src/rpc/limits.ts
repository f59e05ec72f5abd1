/** The largest message either door takes, in bytes: what stock gRPC clients and servers take by default. */
export const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;

/** Where a list ends its page, in bytes of encoded messages, so that the answer fits into one message. */
export const MAX_PAGE_BYTES = 3 * 1024 * 1024;
