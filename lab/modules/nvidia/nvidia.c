// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A stand-in for NVIDIA's driver, with faults to order.
 *
 * On the lab's virtual GPU the real driver's usage count stays zero, because the GSP firmware does not boot: so nothing
 * that hangs on that count can be shown with it. This module has the same name, nodes, /proc files and messages, takes
 * interrupts at first open and frees them at last close, and waits in remove() as the real one does. Every knob is a
 * module parameter, to be given to modprobe or written to /sys/module/nvidia/parameters.
 *
 * What it imitates is named as file:function of NVIDIA's open-gpu-kernel-modules, kernel-open/.
 */
#define pr_fmt(fmt) "NVRM: " fmt

#include <linux/cdev.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/i2c.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>

#define MAJOR_NUMBER	195		/* nvidia/nv-chardev-numbers.h */
#define MINOR_CTL	255
#define GPUS		8

struct gpu {
	struct pci_dev *pdev;
	int minor;
	int usage;			/* opens of its node, and kernel users */
	bool initialised;		/* has its interrupts */
	bool removing;
	bool uuid_known;
	struct proc_dir_entry *proc;
	struct i2c_adapter adapter;	/* where i2c is set */
};

static DEFINE_MUTEX(lock);		/* for all below, and never held while asleep for long */
static struct gpu *gpus[GPUS];		/* by minor */
static int found, bound;
static struct cdev regular, ctl;
static struct proc_dir_entry *proc_top, *proc_gpus;

static char *version = "580.126.20";
module_param(version, charp, 0444);
MODULE_PARM_DESC(version, "what /proc/driver/nvidia/version says");

static int remove_hang;
module_param(remove_hang, int, 0644);
MODULE_PARM_DESC(remove_hang, "remove() takes N seconds longer; -1: until this is 0");

static bool opens_while_removing;
module_param(opens_while_removing, bool, 0644);
MODULE_PARM_DESC(opens_while_removing, "opens succeed while remove() waits, as up to 570; else ENODEV");

static int probe_fail;
module_param(probe_fail, int, 0644);
MODULE_PARM_DESC(probe_fail, "so many probes fail, counted down; -1: all");

static uint probe_delay_ms;
module_param(probe_delay_ms, uint, 0644);
MODULE_PARM_DESC(probe_delay_ms, "a probe takes so long");

static bool drain;
module_param(drain, bool, 0644);
MODULE_PARM_DESC(drain, "new opens fail: EBUSY on an initialised GPU, EIO on another; ends when a GPU is removed");

static bool i2c;
module_param(i2c, bool, 0444);
MODULE_PARM_DESC(i2c, "a GPU has an I2C adapter, and remove() waits for those who have it open");

/* nvidia/nv.c:nv_start_device and nv_stop_device: interrupts come with the first user and go with the last. */
static int start(struct gpu *gpu)
{
	if (gpu->initialised)
		return 0;
	if (pci_alloc_irq_vectors(gpu->pdev, 1, 1, PCI_IRQ_MSI) < 0)
		return -EIO;
	gpu->initialised = true;
	gpu->uuid_known = true;
	return 0;
}

static void stop(struct gpu *gpu)
{
	if (gpu->initialised)
		pci_free_irq_vectors(gpu->pdev);
	gpu->initialised = false;
}

static bool persistence;

static int get(struct gpu *gpu)
{
	int err = start(gpu);

	if (!err)
		gpu->usage++;
	return err;
}

static void put(struct gpu *gpu)
{
	if (--gpu->usage == 0 && !persistence)
		stop(gpu);
}

/* The kernel's persistence mode: initialised without a user (nv.c: NV_FLAG_PERSISTENT_SW_STATE). */
static int set_persistence(const char *text, const struct kernel_param *param)
{
	int i, err;

	mutex_lock(&lock);
	err = param_set_bool(text, param);
	for (i = 0; i < GPUS && !err; i++) {
		if (!gpus[i])
			continue;
		if (persistence)
			err = start(gpus[i]);
		else if (gpus[i]->usage == 0)
			stop(gpus[i]);
	}
	mutex_unlock(&lock);
	return err;
}

static const struct kernel_param_ops persistence_ops = { .set = set_persistence, .get = param_get_bool };
module_param_cb(persistence, &persistence_ops, &persistence, 0644);
MODULE_PARM_DESC(persistence, "persistence mode of all GPUs bound now; ends when a GPU is removed");

/* A reference of the module to itself: nobody can unload it. */
static bool pin;

static int set_pin(const char *text, const struct kernel_param *param)
{
	bool before = pin;
	int err = param_set_bool(text, param);

	if (!err && pin && !before)
		__module_get(THIS_MODULE);
	if (!err && !pin && before)
		module_put(THIS_MODULE);
	return err;
}

static const struct kernel_param_ops pin_ops = { .set = set_pin, .get = param_get_bool };
module_param_cb(pin, &pin_ops, &pin, 0644);
MODULE_PARM_DESC(pin, "the module cannot be unloaded");

/* A user without a descriptor in any process, as a dma-buf or another driver is: usage count and module reference. */
static struct gpu *hidden_at;

static int set_hidden_user(const char *text, const struct kernel_param *param)
{
	bool wanted;
	int err = kstrtobool(text, &wanted);

	mutex_lock(&lock);
	if (!err && wanted && !hidden_at) {
		err = gpus[0] ? get(gpus[0]) : -ENODEV;
		if (!err) {
			hidden_at = gpus[0];
			__module_get(THIS_MODULE);
		}
	} else if (!err && !wanted && hidden_at) {
		put(hidden_at);
		hidden_at = NULL;
		module_put(THIS_MODULE);
	}
	mutex_unlock(&lock);
	return err;
}

static int get_hidden_user(char *text, const struct kernel_param *param)
{
	return sprintf(text, "%c\n", hidden_at ? 'Y' : 'N');
}

static const struct kernel_param_ops hidden_user_ops = { .set = set_hidden_user, .get = get_hidden_user };
module_param_cb(hidden_user, &hidden_user_ops, NULL, 0644);
MODULE_PARM_DESC(hidden_user, "the first GPU is in use, and no process shows it");

/* nvidia/nv.c:nv_open_device */
static int open_gpu(struct gpu *gpu)
{
	if (!gpu || (gpu->removing && !opens_while_removing))
		return -ENODEV;
	if (drain)
		return gpu->initialised ? -EBUSY : -EIO;
	return get(gpu);
}

static int nvidia_open(struct inode *inode, struct file *file)
{
	unsigned int minor = iminor(inode);
	int err = 0;

	/* The file's reference to the module is the kernel's doing (fs/char_dev.c:chrdev_open, by fops.owner). */
	if (minor != MINOR_CTL) {
		mutex_lock(&lock);
		file->private_data = minor < GPUS ? gpus[minor] : NULL;
		err = open_gpu(file->private_data);
		mutex_unlock(&lock);
	}
	return err ? err : nonseekable_open(inode, file);
}

static int nvidia_release(struct inode *inode, struct file *file)
{
	if (file->private_data) {
		mutex_lock(&lock);
		put(file->private_data);
		mutex_unlock(&lock);
	}
	return 0;
}

/* Nothing is behind it; a mapping keeps its file open, and that is what a case wants. */
static int nvidia_mmap(struct file *file, struct vm_area_struct *area)
{
	return 0;
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.open = nvidia_open,
	.release = nvidia_release,
	.mmap = nvidia_mmap,
};

/* nvidia/nv-procfs.c:nv_procfs_read_gpu_info */
static int show_information(struct seq_file *s, void *unused)
{
	struct gpu *gpu = s->private;
	struct pci_dev *pdev = gpu->pdev;

	seq_printf(s, "Model: \t\t %s\n", pdev->device == 0x2684 ? "NVIDIA GeForce RTX 4090" : "NVIDIA Graphics Device");
	seq_printf(s, "IRQ:   \t\t %d\n", pdev->irq);
	if (gpu->uuid_known)
		seq_printf(s, "GPU UUID: \t GPU-1abc0de5-0000-4000-8000-%012x\n", pci_dev_id(pdev));
	else
		seq_puts(s, "GPU UUID: \t GPU-\?\?\?\?\?\?\?\?-\?\?\?\?-\?\?\?\?-\?\?\?\?-\?\?\?\?\?\?\?\?\?\?\?\?\n");
	seq_puts(s, "Video BIOS: \t \?\?.\?\?.\?\?.\?\?.\?\?\n");
	seq_puts(s, "Bus Type: \t PCIe\n");
	seq_puts(s, "DMA Size: \t 47 bits\n");
	seq_puts(s, "DMA Mask: \t 0x7fffffffffff\n");
	seq_printf(s, "Bus Location: \t %s\n", pci_name(pdev));
	seq_printf(s, "Device Minor: \t %d\n", gpu->minor);
	seq_printf(s, "GPU Firmware: \t %s\n", version);
	seq_puts(s, "GPU Excluded:\t No\n");
	return 0;
}

static int show_version(struct seq_file *s, void *unused)
{
	seq_printf(s, "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  %s  Release Build  (stand-in)\n", version);
	return 0;
}

/* nvidia/nv-i2c.c:nv_i2c_add_adapter. The adapter's owner is pinned by each open of /dev/i2c-N. */
static int i2c_transfer_nothing(struct i2c_adapter *adapter, struct i2c_msg *messages, int count)
{
	return -EIO;
}

static u32 i2c_can(struct i2c_adapter *adapter)
{
	return I2C_FUNC_I2C;
}

static const struct i2c_algorithm i2c_algorithm = { .xfer = i2c_transfer_nothing, .functionality = i2c_can };

static int add_i2c(struct gpu *gpu)
{
	gpu->adapter.owner = THIS_MODULE;
	gpu->adapter.algo = &i2c_algorithm;
	gpu->adapter.dev.parent = &gpu->pdev->dev;
	snprintf(gpu->adapter.name, sizeof(gpu->adapter.name), "NVIDIA i2c adapter 1 at %x:%02x.%u",
		 gpu->pdev->bus->number, PCI_SLOT(gpu->pdev->devfn), PCI_FUNC(gpu->pdev->devfn));
	return i2c_add_adapter(&gpu->adapter);
}

static int nvidia_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct gpu *gpu;
	int minor;

	found++;
	if (probe_delay_ms)
		msleep(probe_delay_ms);
	if (probe_fail) {
		if (probe_fail > 0)
			probe_fail--;
		dev_err(&pdev->dev, "NVRM: probe fails, as ordered\n");
		return -1;	/* what the real one returns, whatever the reason (nvidia/nv-pci.c:nv_pci_probe) */
	}
	if (pci_enable_device(pdev))
		return -1;
	if (pci_request_region(pdev, 0, "nvidia"))
		goto disable;
	pci_set_master(pdev);

	gpu = kzalloc(sizeof(*gpu), GFP_KERNEL);
	if (!gpu)
		goto release;
	gpu->pdev = pdev;
	if (i2c && add_i2c(gpu))
		goto free;
	mutex_lock(&lock);
	for (minor = 0; minor < GPUS && gpus[minor]; minor++)
		;
	if (minor < GPUS)
		gpus[minor] = gpu;
	mutex_unlock(&lock);
	if (minor == GPUS)
		goto no_minor;

	gpu->minor = minor;
	pci_set_drvdata(pdev, gpu);
	gpu->proc = proc_mkdir(pci_name(pdev), proc_gpus);
	proc_create_single_data("information", 0444, gpu->proc, show_information, gpu);
	bound++;
	return 0;

no_minor:
	if (i2c)
		i2c_del_adapter(&gpu->adapter);
free:
	kfree(gpu);
release:
	pci_release_region(pdev, 0);
disable:
	pci_disable_device(pdev);
	return -1;
}

/*
 * common/inc/nv-time.h:nv_sleep_ms sleeps interruptibly and looks at no signal: a writer that waits here shows S, and
 * after a SIGKILL it spins (R) and still does not end.
 */
static void os_delay(unsigned int ms)
{
	unsigned long until = jiffies + msecs_to_jiffies(ms);

	while (time_before(jiffies, until)) {
		set_current_state(TASK_INTERRUPTIBLE);
		schedule_timeout(until - jiffies);
	}
}

static bool must_wait(struct gpu *gpu, unsigned long since)
{
	return gpu->usage > 0 || remove_hang < 0 || time_before(jiffies, since + remove_hang * HZ);
}

/* nvidia/nv-pci.c:nv_pci_remove, up to 590: it waits for the users, without limit, and unlinks the GPU afterwards. */
static void nvidia_remove(struct pci_dev *pdev)
{
	struct gpu *gpu = pci_get_drvdata(pdev);
	unsigned long since = jiffies;

	mutex_lock(&lock);
	gpu->removing = true;
	if (must_wait(gpu, since)) {
		pr_err("Attempting to remove device %s with non-zero usage count!\n", pci_name(pdev));
		while (must_wait(gpu, since)) {
			mutex_unlock(&lock);
			os_delay(500);
			mutex_lock(&lock);
		}
		pr_err("Continuing with GPU removal for device %s\n", pci_name(pdev));
	}
	gpus[gpu->minor] = NULL;
	stop(gpu);
	drain = false;
	persistence = false;
	mutex_unlock(&lock);

	proc_remove(gpu->proc);
	/* Waits for the last close of /dev/i2c-N, uninterruptibly (drivers/i2c/i2c-core-base.c:i2c_del_adapter). */
	if (i2c)
		i2c_del_adapter(&gpu->adapter);
	kfree(gpu);
	pci_release_region(pdev, 0);
	pci_disable_device(pdev);
	bound--;
}

/* nvidia/nv-pci-table.c: these two classes exactly. */
static const struct pci_device_id ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_NVIDIA, PCI_ANY_ID), .class = PCI_CLASS_DISPLAY_VGA << 8, .class_mask = ~0 },
	{ PCI_DEVICE(PCI_VENDOR_ID_NVIDIA, PCI_ANY_ID), .class = PCI_CLASS_DISPLAY_3D << 8, .class_mask = ~0 },
	{ }
};
MODULE_DEVICE_TABLE(pci, ids);

static struct pci_driver driver = {
	.name = "nvidia",
	.id_table = ids,
	.probe = nvidia_probe,
	.remove = nvidia_remove,
};

static int add_nodes(struct cdev *nodes, unsigned int first, unsigned int count, const char *name)
{
	dev_t number = MKDEV(MAJOR_NUMBER, first);
	int err = register_chrdev_region(number, count, name);

	if (err)
		return err;
	cdev_init(nodes, &fops);
	nodes->owner = THIS_MODULE;
	err = cdev_add(nodes, number, count);
	if (err)
		unregister_chrdev_region(number, count);
	return err;
}

static void remove_nodes(struct cdev *nodes)
{
	dev_t number = nodes->dev;
	unsigned int count = nodes->count;

	cdev_del(nodes);
	unregister_chrdev_region(number, count);
}

/* nvidia/nv.c:nvidia_init_module: where it has got no GPU it does not stay. */
static int __init nvidia_init(void)
{
	int err = add_nodes(&regular, 0, GPUS, "nvidia");

	if (err)
		return err;
	err = add_nodes(&ctl, MINOR_CTL, 1, "nvidiactl");
	if (err)
		goto no_ctl;
	err = -ENOMEM;
	proc_top = proc_mkdir("driver/nvidia", NULL);
	if (!proc_top)
		goto no_proc;
	proc_create_single("version", 0444, proc_top, show_version);
	proc_gpus = proc_mkdir("gpus", proc_top);

	err = pci_register_driver(&driver);
	if (err)
		goto no_driver;
	if (bound == 0) {
		err = -ENODEV;
		pr_err("%s\n", found ? "None of the NVIDIA devices were initialized." : "No NVIDIA devices probed.");
		pci_unregister_driver(&driver);
		goto no_driver;
	}
	pr_info("loading the stand-in for NVIDIA UNIX Open Kernel Module for x86_64  %s\n", version);
	return 0;

no_driver:
	proc_remove(proc_top);
no_proc:
	remove_nodes(&ctl);
no_ctl:
	remove_nodes(&regular);
	return err;
}

/* The nodes go last, as with the real one: an open until then is told ENODEV. */
static void __exit nvidia_exit(void)
{
	pci_unregister_driver(&driver);
	proc_remove(proc_top);
	remove_nodes(&ctl);
	remove_nodes(&regular);
}

module_init(nvidia_init);
module_exit(nvidia_exit);
MODULE_ALIAS_CHARDEV_MAJOR(MAJOR_NUMBER);
MODULE_DESCRIPTION("The lab's stand-in for NVIDIA's driver, with faults to order");
MODULE_LICENSE("Dual MIT/GPL");
