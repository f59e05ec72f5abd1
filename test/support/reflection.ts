import { once } from 'node:events';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import { type FileDescriptorProto, FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { type ClientDuplexStream, credentials, type GrpcObject, loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

interface ReflectionAnswer {
  readonly listServicesResponse?: { readonly service: { readonly name: string }[] };
  readonly fileDescriptorResponse?: { readonly fileDescriptorProto: Buffer[] };
}

interface ReflectionClient {
  serverReflectionInfo(): ClientDuplexStream<object, ReflectionAnswer>;
  close(): void;
}

const connect = (address: string, version: 'v1' | 'v1alpha'): ReflectionClient => {
  const root = dirname(createRequire(import.meta.url).resolve('@grpc/reflection/package.json'));
  const loaded = loadPackageDefinition(
    loadSync(join(root, 'build/proto/grpc/reflection', version, 'reflection.proto')),
  );
  const { reflection } = loaded.grpc as unknown as { reflection: Record<string, GrpcObject> };
  const Stub = reflection[version]?.ServerReflection as unknown as new (...args: unknown[]) => ReflectionClient;
  return new Stub(address, credentials.createInsecure());
};

/** Asks a server what it serves, as a stock client without any files does; the files are those of DocumentService. */
export const listServices = async (
  address: string,
  version: 'v1' | 'v1alpha',
): Promise<{ services: string[]; files: FileDescriptorProto[] }> => {
  const client = connect(address, version);
  const stream = client.serverReflectionInfo();
  const ask = async (request: object): Promise<ReflectionAnswer> => {
    stream.write(request);
    const [answer] = await once(stream, 'data');
    return answer;
  };
  const listed = await ask({ listServices: '' });
  const found = await ask({ fileContainingSymbol: 'jeex.persistence.v1.DocumentService' });
  stream.end();
  client.close();
  return {
    services: (listed.listServicesResponse?.service ?? []).map(({ name }) => name).sort(),
    files: (found.fileDescriptorResponse?.fileDescriptorProto ?? []).map((bytes) =>
      fromBinary(FileDescriptorProtoSchema, bytes),
    ),
  };
};
