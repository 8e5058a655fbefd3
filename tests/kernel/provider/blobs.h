/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The byte strings that an SVSM and a security processor hand out. */
#ifndef BLOBS_H
#define BLOBS_H

#include <linux/types.h>
#include <linux/uuid.h>

#define REPORT_SIZE 1184
#define REPORT_DATA_SIZE 64
#define MANIFEST_MAX_SIZE 1024
#define EK_MAX_SIZE 512

struct report_fields {
	u32 version;
	u32 vmpl;
	u8 chip_id; /* every byte of it */
	u8 report_data[REPORT_DATA_SIZE];
};

/* Writes REPORT_SIZE bytes. */
void encode_report(u8 *at, const struct report_fields *fields);

/*
 * Writes the manifest of a service, of all of them for the null GUID, and returns its size; 0 for
 * a service that is not offered. The vTPM's is `ek`, or one of our own making where that has no bytes.
 */
size_t encode_manifest(u8 *at, const guid_t *service, const u8 *ek, size_t ek_size);

#endif
