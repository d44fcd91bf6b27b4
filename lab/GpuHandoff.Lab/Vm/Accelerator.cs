using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using GpuHandoff.Lab.Image;

namespace GpuHandoff.Lab.Vm;

/// <summary>KVM where it truly works, else emulation.</summary>
static class Accelerator
{
    static readonly TimeSpan ProbeLimit = TimeSpan.FromSeconds(20);

    /// <summary><c>kvm</c> or <c>tcg</c>. GPU_HANDOFF_LAB_ACCELERATOR decides; else the outcome of one probe, kept.</summary>
    public static string Choose(LabImage image)
    {
        if (LabPlaces.Variable("GPU_HANDOFF_LAB_ACCELERATOR") is { } wanted)
            return wanted;
        if (!MayOpenKvm())
            return "tcg";

        var kept = Path.Combine(LabPlaces.Cache, $"accelerator-{HostHash()}");
        if (File.Exists(kept) && File.ReadAllText(kept).Trim() is "kvm" or "tcg")
            return File.ReadAllText(kept).Trim();
        var found = KvmBoots(image) ? "kvm" : "tcg";
        Directory.CreateDirectory(LabPlaces.Cache);
        File.WriteAllText(kept, found + "\n");
        return found;
    }

    static bool MayOpenKvm()
    {
        try
        {
            using var _ = File.Open("/dev/kvm", FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
            return true;
        }
        catch (Exception trouble) when (trouble is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    // /dev/kvm can be there and useless: KVM then stops with an internal error at an ordinary kernel's first instructions.
    static bool KvmBoots(LabImage image)
    {
        using var qemu = Process.Start(new ProcessStartInfo("qemu-system-x86_64",
            [
                "-M", "q35,accel=kvm,kernel-irqchip=split", "-cpu", "host", "-m", "512", "-nodefaults", "-display", "none",
                "-no-reboot", "-serial", "stdio", "-device", "intel-iommu,intremap=on,caching-mode=on",
                "-kernel", image.Kernel, "-initrd", image.Initrd, "-append", "console=ttyS0 quiet lab.probe panic=-1",
            ])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        qemu.BeginErrorReadLine();
        var console = qemu.StandardOutput.ReadToEndAsync();
        var ended = qemu.WaitForExit(ProbeLimit);
        if (!ended)
            qemu.Kill();
        return console.Wait(TimeSpan.FromSeconds(5)) && console.Result.Contains("lab-probe-ok");
    }

    // Another kernel or another processor may do better or worse; the file is small and old ones do no harm.
    static string HostHash()
    {
        var kernel = File.ReadAllText("/proc/sys/kernel/osrelease");
        var processor = File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name")) ?? "";
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(kernel + processor)))[..16];
    }
}
