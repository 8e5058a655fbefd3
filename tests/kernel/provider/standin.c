// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A TSM report provider that answers as the SEV guest driver of a VM under an SVSM does.
 *
 * The TSM core and configfs around it are the kernel's own; only the SVSM and the security
 * processor behind the driver are played. Requests are refused for the reasons for which
 * sev_report_new() and COCONUT-SVSM refuse them. The answers are well-formed, bound to the
 * request (REPORT_DATA = SHA-512(nonce || manifest)) and signed by nobody.
 *
 * The parameters in /sys/module/svsm_standin/parameters change the answers of a loaded module.
 */
#include <crypto/hash.h>
#include <crypto/sha2.h>
#include <linux/delay.h>
#include <linux/hex.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/tsm.h>

#include "blobs.h"

#define NATURAL_SIZE -1 /* of a blob: what the request calls for */
#define CHIP_ID_BYTE 0xc1
#define TABLE_MAX_SIZE 1024

static uint vmpl = 2;
module_param(vmpl, uint, 0444);
MODULE_PARM_DESC(vmpl, "VMPL of this guest: the privilege floor; 0 hides the SVSM attributes");

static uint calls;
module_param(calls, uint, 0444);
MODULE_PARM_DESC(calls, "requests so far, refused ones included");

static char last[160];
module_param_string(last, last, sizeof(last), 0444);
MODULE_PARM_DESC(last, "what the latest request asked for");

static uint delay_ms;
module_param(delay_ms, uint, 0644);
MODULE_PARM_DESC(delay_ms, "milliseconds that each request takes");

static uint fail_errno;
module_param(fail_errno, uint, 0644);
MODULE_PARM_DESC(fail_errno, "the error (a positive errno) of the next fail_count requests");

static uint fail_count;
module_param(fail_count, uint, 0644);
MODULE_PARM_DESC(fail_count, "how many requests fail with fail_errno; counts down");

static uint report_version = 3;
module_param(report_version, uint, 0644);
MODULE_PARM_DESC(report_version, "VERSION of the reports made through the SVSM");

static uint report_vmpl;
module_param(report_vmpl, uint, 0644);
MODULE_PARM_DESC(report_vmpl, "VMPL of the reports made through the SVSM");

static bool wrong_report_data;
module_param(wrong_report_data, bool, 0644);
MODULE_PARM_DESC(wrong_report_data, "spoil REPORT_DATA of the reports made through the SVSM");

static bool wrong_manifest;
module_param(wrong_manifest, bool, 0644);
MODULE_PARM_DESC(wrong_manifest, "answer for every service with the manifest of all of them");

static uint plain_version = 3;
module_param(plain_version, uint, 0644);
MODULE_PARM_DESC(plain_version, "VERSION of the reports made without the SVSM");

static uint plain_chip_id = CHIP_ID_BYTE;
module_param(plain_chip_id, uint, 0644);
MODULE_PARM_DESC(plain_chip_id, "every byte of CHIP_ID in the reports made without the SVSM");

static uint plain_fail_errno;
module_param(plain_fail_errno, uint, 0644);
MODULE_PARM_DESC(plain_fail_errno, "the error (a positive errno) of every request without the SVSM");

static int outblob_size = NATURAL_SIZE;
module_param(outblob_size, int, 0644);
MODULE_PARM_DESC(outblob_size, "bytes of outblob: cut, or padded with zeros; negative is natural");

static int manifest_size = NATURAL_SIZE;
module_param(manifest_size, int, 0644);
MODULE_PARM_DESC(manifest_size, "bytes of manifestblob: cut, or padded with zeros; negative is natural");

static uint auxblob_size;
module_param(auxblob_size, uint, 0644);
MODULE_PARM_DESC(auxblob_size, "least bytes of auxblob: the certificates, padded with zeros");

/* Bytes, a certificate table or a key, written and read as hexadecimal digits. */
struct table {
	size_t size;
	u8 bytes[TABLE_MAX_SIZE];
};
static_assert(EK_MAX_SIZE <= TABLE_MAX_SIZE);

static int table_set(const char *digits, const struct kernel_param *param)
{
	struct table *table = param->arg;
	size_t length = strcspn(digits, "\n");
	int rc;

	if (length % 2 || length / 2 > sizeof(table->bytes))
		return -EINVAL;
	rc = hex2bin(table->bytes, digits, length / 2);
	table->size = rc ? 0 : length / 2;
	return rc;
}

static int table_get(char *page, const struct kernel_param *param)
{
	const struct table *table = param->arg;
	char *end = bin2hex(page, table->bytes, table->size);

	*end++ = '\n';
	return end - page;
}

static const struct kernel_param_ops table_ops = { .set = table_set, .get = table_get };

static struct table svsm_certificates;
module_param_cb(svsm_certificates, &table_ops, &svsm_certificates, 0644);
MODULE_PARM_DESC(svsm_certificates, "the certificate table of requests through the SVSM");

static struct table plain_certificates;
module_param_cb(plain_certificates, &table_ops, &plain_certificates, 0644);
MODULE_PARM_DESC(plain_certificates, "the certificate table of requests without the SVSM");

static int ek_set(const char *digits, const struct kernel_param *param)
{
	return strcspn(digits, "\n") / 2 > EK_MAX_SIZE ? -EINVAL : table_set(digits, param);
}

static const struct kernel_param_ops ek_ops = { .set = ek_set, .get = table_get };

static struct table ek;
module_param_cb(ek, &ek_ops, &ek, 0644);
MODULE_PARM_DESC(ek, "the TPMT_PUBLIC of the vTPM's EK; one that no TPM has where it is empty");

static struct crypto_shash *sha512;

static int hash(u8 *digest, const u8 *nonce, size_t nonce_size, const u8 *manifest, size_t manifest_size)
{
	SHASH_DESC_ON_STACK(state, sha512);

	state->tfm = sha512;
	return crypto_shash_init(state) ?: crypto_shash_update(state, nonce, nonce_size) ?:
	       crypto_shash_finup(state, manifest, manifest_size, digest);
}

/*
 * Put a copy of `content`, cut or padded to `size`, into a report. The core frees it.
 *
 * Like the SEV guest driver, this leaves the length alone where there is no blob: in an entry that
 * had one before, the core then reads the old length from nowhere.
 */
static int put_blob(u8 **blob, size_t *blob_size, size_t size, const u8 *content, size_t content_size)
{
	if (!size)
		return 0;
	*blob = kvzalloc(size, GFP_KERNEL);
	if (!*blob)
		return -ENOMEM;
	memcpy(*blob, content, min(size, content_size));
	*blob_size = size;
	return 0;
}

static size_t sized(int knob, size_t natural)
{
	return knob < 0 ? natural : knob;
}

static int put_answer(struct tsm_report *report, const struct report_fields *fields, const struct table *table)
{
	static u8 outblob[REPORT_SIZE];

	encode_report(outblob, fields);
	return put_blob(&report->outblob, &report->outblob_len, sized(outblob_size, REPORT_SIZE), outblob,
			REPORT_SIZE) ?:
	       put_blob(&report->auxblob, &report->auxblob_len, max_t(size_t, table->size, auxblob_size),
			table->bytes, table->size);
}

static int answer_through_svsm(struct tsm_report *report)
{
	const struct tsm_desc *desc = &report->desc;
	struct report_fields fields = {
		.version = report_version,
		.vmpl = report_vmpl,
		.chip_id = CHIP_ID_BYTE,
	};
	static u8 manifest[MANIFEST_MAX_SIZE];
	size_t natural, size;
	int rc;

	if (strcmp(desc->service_provider, "svsm") || desc->service_manifest_version)
		return -EINVAL;
	natural = encode_manifest(manifest, wrong_manifest ? &guid_null : &desc->service_guid, ek.bytes, ek.size);
	if (!natural)
		return -EINVAL;
	size = sized(manifest_size, natural);
	rc = put_blob(&report->manifestblob, &report->manifestblob_len, size, manifest, natural) ?:
	     hash(fields.report_data, desc->inblob, desc->inblob_len, report->manifestblob, size);
	if (rc)
		return rc;
	if (wrong_report_data)
		fields.report_data[0] ^= 1;
	return put_answer(report, &fields, &svsm_certificates);
}

static int answer_plainly(struct tsm_report *report)
{
	const struct tsm_desc *desc = &report->desc;
	struct report_fields fields = {
		.version = plain_version,
		.vmpl = desc->privlevel,
		.chip_id = plain_chip_id,
	};

	if (desc->privlevel < vmpl)
		return -EINVAL;
	if (plain_fail_errno)
		return -(int)plain_fail_errno;
	memcpy(fields.report_data, desc->inblob, sizeof(fields.report_data));
	return put_answer(report, &fields, &plain_certificates);
}

/* The core holds its one lock around this: requests come one at a time. */
static int report_new(struct tsm_report *report, void *data)
{
	const struct tsm_desc *desc = &report->desc;

	calls++;
	scnprintf(last, sizeof(last), "inlen=%zu priv=%u sp=%s guid=%pUl ver=%u", desc->inblob_len,
		  desc->privlevel, desc->service_provider ?: "(null)", &desc->service_guid,
		  desc->service_manifest_version);
	if (delay_ms)
		msleep(delay_ms);
	if (fail_count) {
		fail_count--;
		return -(int)fail_errno;
	}
	if (desc->inblob_len != REPORT_DATA_SIZE)
		return -EINVAL;
	return desc->service_provider ? answer_through_svsm(report) : answer_plainly(report);
}

static bool attr_visible(int n)
{
	switch (n) {
	case TSM_REPORT_SERVICE_PROVIDER:
	case TSM_REPORT_SERVICE_GUID:
	case TSM_REPORT_SERVICE_MANIFEST_VER:
		return vmpl;
	}
	return true;
}

static bool bin_attr_visible(int n)
{
	return n != TSM_REPORT_MANIFESTBLOB || vmpl;
}

static struct tsm_ops ops = {
	.name = "sev_guest",
	.report_new = report_new,
	.report_attr_visible = attr_visible,
	.report_bin_attr_visible = bin_attr_visible,
};

module_param_named(floor, ops.privlevel_floor, uint, 0644);
MODULE_PARM_DESC(floor, "the privilege floor that the core names and demands; vmpl when loaded");

static int __init standin_init(void)
{
	int rc;

	sha512 = crypto_alloc_shash("sha512", 0, 0);
	if (IS_ERR(sha512))
		return PTR_ERR(sha512);
	ops.privlevel_floor = vmpl;
	rc = tsm_register(&ops, NULL);
	if (rc)
		crypto_free_shash(sha512);
	return rc;
}

static void __exit standin_exit(void)
{
	tsm_unregister(&ops);
	crypto_free_shash(sha512);
}

module_init(standin_init);
module_exit(standin_exit);
MODULE_DESCRIPTION("A TSM report provider that plays an SVSM, for tests");
MODULE_LICENSE("GPL");
