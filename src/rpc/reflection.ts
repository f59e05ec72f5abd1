import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import type { Server } from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition, type PackageDefinition } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';

const DESCRIPTORS = new URL('../gen/descriptors.binpb', import.meta.url);

/** Answers `grpc.reflection.v1` and `v1alpha` for every service, theirs and health included, so that grpcurl needs no files. */
export const addReflection = (server: Server): void => {
  new ReflectionService({ ...ownFiles(), ...reflectionFiles() }).addToServer(server);
};

/**
 * The committed descriptors, file by file. `loadFileDescriptorSetFromBuffer` would merge all files of a package into one
 * and lose the fields' presence on the way; the reflection service itself only reads `fileDescriptorProtos`.
 */
const ownFiles = (): PackageDefinition => {
  const set = fromBinary(FileDescriptorSetSchema, readFileSync(DESCRIPTORS));
  const fileDescriptorProtos = set.file.map((file) => Buffer.from(toBinary(FileDescriptorProtoSchema, file)));
  return { own: { fileDescriptorProtos } as MessageTypeDefinition<object, object> };
};

const reflectionFiles = (): PackageDefinition => {
  const root = dirname(createRequire(import.meta.url).resolve('@grpc/reflection/package.json'));
  const file = (version: string) => join(root, 'build/proto/grpc/reflection', version, 'reflection.proto');
  return loadSync([file('v1'), file('v1alpha')]);
};
