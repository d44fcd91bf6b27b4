using GpuHandoff.Lab.Image;
using GpuHandoff.Lab.VirtualGpu;
using GpuHandoff.Machines;

namespace GpuHandoff.Lab.Vm;

/// <summary>Words a <see cref="LabMachine"/> as QEMU's command line, and says where the guest will find the cards.</summary>
sealed class MachineArguments
{
    // Root ports from here on, out of the way of the other devices of bus 0.
    const int FirstRootPort = 0x10;
    const int StrangerSlot = 2;
    const int DisplaySlot = 5;
    const string Ovmf = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    const string OvmfVariables = "/usr/share/OVMF/OVMF_VARS_4M.fd";

    readonly List<string> arguments = [];
    readonly List<PluggedGpu> gpus = [];

    MachineArguments()
    {
    }

    public IReadOnlyList<string> Arguments => arguments;

    public IReadOnlyList<PluggedGpu> Gpus => gpus;

    /// <summary>The display's place; null where there is none.</summary>
    public PciAddress? Display { get; private set; }

    public static MachineArguments For(
        LabMachine machine, LabImage image, string accelerator, IReadOnlyList<IReadOnlyList<VirtualFunction>> cards, VmFolder folder)
    {
        var made = new MachineArguments();
        made.Base(machine, accelerator);
        made.Firmware(machine, folder);
        made.Screen(machine);
        made.Disks(image, folder, machine.Files.Count > 0);
        made.Channels(folder);
        made.Boot(machine, image);
        var bus = 1;
        for (var i = 0; i < cards.Count; i++)
            made.Card(machine.Gpus[i], cards[i], i, ref bus);
        return made;
    }

    void Base(LabMachine machine, string accelerator)
    {
        // The proxy device shares the guest's memory with its server, hence the memfd. Split irqchip: else no intremap.
        // No SATA, no nested virtualization: udev would load modules for them. No la57: a fifth level of page tables is one
        // more to walk in software.
        Add("-M", $"q35,accel={accelerator},kernel-irqchip=split,sata=off,smbus=off,memory-backend=mem0");
        Add("-object", $"memory-backend-memfd,id=mem0,size={machine.MemoryMiB}M,share=on");
        Add("-m", $"{machine.MemoryMiB}", "-smp", "2", "-cpu", accelerator == "kvm" ? "host" : "max,la57=off,svm=off");
        Add("-nodefaults", "-no-reboot", "-display", "none", "-vga", "none");
        Add("-device", "intel-iommu,intremap=on,caching-mode=on");
    }

    void Firmware(LabMachine machine, VmFolder folder)
    {
        if (machine.Firmware != LabFirmware.Ovmf)
            return;
        if (!File.Exists(Ovmf))
            throw new LabUnavailable($"{Ovmf} is not there", "run lab/install-needs");
        // It writes its variables: each machine gets its own.
        File.Copy(OvmfVariables, folder.FirmwareVariables);
        Add("-drive", $"if=pflash,format=raw,readonly=on,file={Ovmf}");
        Add("-drive", $"if=pflash,format=raw,file={folder.FirmwareVariables}");
    }

    void Screen(LabMachine machine)
    {
        if (machine.Display == LabDisplay.None)
            return;
        Display = new(0, 0, DisplaySlot, 0);
        Add("-device", $"{(machine.Display == LabDisplay.Vga ? "VGA" : "bochs-display")},id=screen,addr=0x{DisplaySlot:x}");
    }

    void Disks(LabImage image, VmFolder folder, bool hasFiles)
    {
        // A snapshot: what the guest writes goes to a file without a name, and the image stays as it was built.
        Add("-drive", $"file={image.Disk},if=none,id=system,format=raw,snapshot=on,file.locking=off,cache=unsafe");
        Add("-device", "virtio-blk-pci,drive=system,addr=0x2");
        if (hasFiles)
        {
            Add("-drive", $"file={folder.Files},if=none,id=files,format=raw,readonly=on");
            Add("-device", "virtio-blk-pci,drive=files,addr=0x3");
        }
    }

    void Channels(VmFolder folder)
    {
        Add("-qmp", $"unix:{folder.Monitor},server=on,wait=off");
        Add("-device", "virtio-serial-pci,addr=0x4");
        Add("-chardev", $"socket,id=agent,path={folder.Agent},server=on,wait=off");
        Add("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0");
        Add("-chardev", folder.Terminal
            ? $"stdio,id=console,signal=off,logfile={folder.Console}"
            : $"file,id=console,path={folder.Console}");
        Add("-serial", "chardev:console");
    }

    void Boot(LabMachine machine, LabImage image)
    {
        // no_timer_check: under load the emulated timer is late, and the kernel panics where it checks it.
        // mitigations=off: nothing to protect here, and each one costs instructions.
        Add("-kernel", image.Kernel, "-initrd", image.Initrd, "-append",
            "root=/dev/vda rw console=ttyS0 panic=-1 quiet systemd.show_status=0 no_timer_check mitigations=off "
            + $"intel_iommu=on iommu=pt {machine.KernelArguments}".TrimEnd());
    }

    void Card(LabGpu gpu, IReadOnlyList<VirtualFunction> functions, int index, ref int bus)
    {
        // The firmware numbers the buses in the order of the root ports, depth first.
        Add("-device", $"pcie-root-port,id=port{index},chassis={index + 1},slot={index + 1},addr={FirstRootPort + index:x}.0");
        var (parent, slot) = ($"port{index}", 0);
        if (gpu.Stranger)
        {
            Add("-device", $"pcie-pci-bridge,id=bridge{index},bus={parent}");
            (parent, slot) = ($"bridge{index}", 1);
            bus++;
        }

        var plugged = new List<PluggedFunction>();
        foreach (var (function, number) in functions.Select((function, number) => (function, number)))
        {
            // Every function of a slot with the multifunction bit: else it gets a group of its own after a rescan.
            Add("-device", $"x-pci-proxy-dev,bus={parent},id=gpu{index}f{number},fd={function.DescriptorForQemu},"
                + $"addr={slot:x}.{number:x},multifunction=on");
            plugged.Add(new(new(0, bus, slot, number), function));
        }
        if (gpu.Stranger)
            Add("-device", $"e1000,bus={parent},addr={StrangerSlot:x}.0,romfile=");
        gpus.Add(new(plugged, gpu.Stranger ? new PciAddress(0, bus, StrangerSlot, 0) : null));
        bus++;
    }

    void Add(params string[] words) => arguments.AddRange(words);
}
