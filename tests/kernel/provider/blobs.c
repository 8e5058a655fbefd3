// SPDX-License-Identifier: GPL-2.0-or-later
#include "blobs.h"

#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/random.h>
#include <linux/string.h>
#include <linux/unaligned.h>

/* Offsets and sizes in an ATTESTATION_REPORT: AMD 56860. */
#define POLICY 0x08
#define VMPL 0x30
#define SIGNATURE_ALGO 0x34
#define CURRENT_TCB 0x38
#define REPORT_DATA 0x50
#define MEASUREMENT 0x90
#define MEASUREMENT_SIZE 48
#define REPORT_ID 0x140
#define REPORT_ID_MA 0x160
#define REPORT_ID_SIZE 32
#define REPORTED_TCB 0x180
#define CPUID_FAM_ID 0x188
#define CPUID_MOD_ID 0x189
#define CPUID_STEP 0x18a
#define CHIP_ID 0x1a0
#define CHIP_ID_SIZE 64
#define COMMITTED_TCB 0x1e0
#define LAUNCH_TCB 0x1f0
#define SIGNATURE_R 0x2a0
#define SIGNATURE_S 0x2e8
#define P384_SIZE 48

/* A services manifest: AMD 58019, section 7. Its header is as long as an entry. */
#define ENTRY_SIZE 24
#define SERVICES 2

static const guid_t services_guid =
	GUID_INIT(0x63849ebb, 0x3d92, 0x4670, 0xa1, 0xff, 0x58, 0xf9, 0xc9, 0x4b, 0x87, 0xbb);
static const guid_t vtpm_guid =
	GUID_INIT(0xc476f1eb, 0x0123, 0x45a5, 0x96, 0x41, 0xb4, 0xe7, 0xdd, 0xe5, 0xbf, 0xe3);
static const guid_t uefi_mm_guid =
	GUID_INIT(0xa4453a59, 0x9e1b, 0x4787, 0xa0, 0x33, 0x19, 0x86, 0xd6, 0xad, 0xbe, 0x55);

/* The TPMT_PUBLIC of an EK made from template L-1 (TCG EK Credential Profile), up to the modulus. */
static const u8 ek_prefix[] = {
	0x00, 0x01, 0x00, 0x0b, 0x00, 0x03, 0x00, 0xb2, 0x00, 0x20, 0x83, 0x71, 0x97, 0x67, 0x44,
	0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e,
	0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa, 0x00, 0x06, 0x00,
	0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,
};

#define MODULUS_SIZE 256
#define UEFI_MM_SIZE 8
static_assert(sizeof(ek_prefix) + MODULUS_SIZE <= EK_MAX_SIZE);
static_assert((1 + SERVICES) * ENTRY_SIZE + EK_MAX_SIZE + UEFI_MM_SIZE <= MANIFEST_MAX_SIZE);

/* The TCB of a machine that was never updated: boot loader 9, SNP 23, microcode 72. */
static void put_tcbs(u8 *report)
{
	const u64 tcb = 9 | 23ULL << 48 | 72ULL << 56;

	put_unaligned_le64(tcb, report + CURRENT_TCB);
	put_unaligned_le64(tcb, report + REPORTED_TCB);
	put_unaligned_le64(tcb, report + COMMITTED_TCB);
	put_unaligned_le64(tcb, report + LAUNCH_TCB);
}

/* A Genoa's. The signature is random, as ECDSA's are: two reports over one nonce differ. */
void encode_report(u8 *at, const struct report_fields *fields)
{
	memset(at, 0, REPORT_SIZE);
	put_unaligned_le32(fields->version, at);
	put_unaligned_le64(BIT(17) | BIT(16), at + POLICY);
	put_unaligned_le32(fields->vmpl, at + VMPL);
	put_unaligned_le32(1, at + SIGNATURE_ALGO);
	put_tcbs(at);
	memcpy(at + REPORT_DATA, fields->report_data, REPORT_DATA_SIZE);
	memset(at + MEASUREMENT, 0x5a, MEASUREMENT_SIZE);
	memset(at + REPORT_ID, 0x1d, REPORT_ID_SIZE);
	memset(at + REPORT_ID_MA, 0xff, REPORT_ID_SIZE);
	at[CPUID_FAM_ID] = 0x19;
	at[CPUID_MOD_ID] = 0x11;
	at[CPUID_STEP] = 1;
	memset(at + CHIP_ID, fields->chip_id, CHIP_ID_SIZE);
	get_random_bytes(at + SIGNATURE_R, P384_SIZE);
	get_random_bytes(at + SIGNATURE_S, P384_SIZE);
}

/* A modulus has its top bit set and is odd. Nobody holds the factors of this one. */
static size_t encode_ek(u8 *at, const u8 *ek, size_t ek_size)
{
	u8 *modulus = at + sizeof(ek_prefix);

	if (ek_size) {
		memcpy(at, ek, ek_size);
		return ek_size;
	}
	memcpy(at, ek_prefix, sizeof(ek_prefix));
	modulus[0] = 0x80;
	for (int i = 1; i < MODULUS_SIZE - 1; i++)
		modulus[i] = 7 * i + 1;
	modulus[MODULUS_SIZE - 1] = 0x01;
	return sizeof(ek_prefix) + MODULUS_SIZE;
}

/* Version 0; Secure Boot is enabled. */
static size_t encode_uefi_mm(u8 *at)
{
	put_unaligned_le32(0, at);
	put_unaligned_le32(BIT(1), at + 4);
	return UEFI_MM_SIZE;
}

static void encode_entry(u8 *at, const guid_t *guid, u32 offset, u32 size)
{
	export_guid(at, guid);
	put_unaligned_le32(offset, at + 16);
	put_unaligned_le32(size, at + 20);
}

static size_t encode_services(u8 *at, const u8 *ek, size_t ek_size)
{
	const u32 vtpm = (1 + SERVICES) * ENTRY_SIZE;
	const u32 vtpm_size = encode_ek(at + vtpm, ek, ek_size);
	const u32 uefi_mm = vtpm + vtpm_size;
	const u32 size = uefi_mm + encode_uefi_mm(at + uefi_mm);

	encode_entry(at, &services_guid, size, SERVICES);
	encode_entry(at + ENTRY_SIZE, &vtpm_guid, vtpm, vtpm_size);
	encode_entry(at + 2 * ENTRY_SIZE, &uefi_mm_guid, uefi_mm, UEFI_MM_SIZE);
	return size;
}

size_t encode_manifest(u8 *at, const guid_t *service, const u8 *ek, size_t ek_size)
{
	if (guid_is_null(service))
		return encode_services(at, ek, ek_size);
	if (guid_equal(service, &vtpm_guid))
		return encode_ek(at, ek, ek_size);
	if (guid_equal(service, &uefi_mm_guid))
		return encode_uefi_mm(at);
	return 0;
}
