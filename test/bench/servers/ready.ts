// How a server that is compared lets the benchmark know: as the service does with `--ready-json`.

/** Tells where the server listens, and runs until standard input ends. */
export const serveUntilInputEnds = async (grpc: string, stop: () => Promise<void> | void): Promise<void> => {
  process.stdout.write(`${JSON.stringify({ grpc, http: '' })}\n`);
  // A terminal's Ctrl-C reaches this process too, whose end the benchmark decides.
  process.on('SIGINT', () => {});
  process.stdin.resume().on('end', async () => {
    await stop();
    process.exit();
  });
};
