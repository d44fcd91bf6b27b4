using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Linux;
using GpuHandoff.Machines;
using GpuHandoff.Survey;
using Microsoft.Win32.SafeHandles;

namespace GpuHandoff.Bench;

/// <summary>
/// How long the last look before an unbind takes: a user that opens the GPU after it is not seen. And what a search costs in memory
/// that meets a process with very many descriptors and mappings. On this machine, without a GPU: the files are of the same kind.
/// </summary>
static class LastLookContest
{
    public const string Title = "## The last look before an unbind";

    const int Looks = 20_000;
    const int Descriptors = 10_000;
    const int Mappings = 30_000;
    const nint MappedLength = 4096;

    public static string Section()
    {
        var kernel = new LinuxKernel(hand: null);
        var folder = Directory.CreateTempSubdirectory();
        var text = new StringBuilder();
        try
        {
            SysPath empty = new(folder.FullName);
            text.Append($"""
                {Title}

                The helper opens the `unbind` file, looks once more, and writes. A user that opens the GPU between that look and the write
                is not seen, so this is the window that is left; it is shorter than the look itself. {Looks} looks, in microseconds, on the machine
                that ran this.

                | look | median | 99 % | longest |
                |---|---|---|---|
                {Row("the function's interrupts (nvidia)", new(empty, []), kernel)}
                {Row("a module's count in /proc/modules (sound, USB-C, vfio-pci)", new(null, [new("no_such_module", 0)]), kernel)}

                The scan of all processes that names a user comes before it, and takes 7 to 12 µs for each descriptor. With NVIDIA's drain state, where the
                driver has it, and without the node `/dev/nvidiaN`, a new user does not even get so far.

                {Memory(kernel)}

                """);
        }
        finally
        {
            folder.Delete();
        }
        return text.ToString();
    }

    static string Row(string name, LastLook look, LinuxKernel kernel)
    {
        var times = new double[Looks];
        for (var i = -100; i < Looks; i++)
        {
            var began = Stopwatch.GetTimestamp();
            if (look.WhyNot(kernel) is { } busy)
                throw new InvalidOperationException(busy);
            if (i >= 0)
                times[i] = Stopwatch.GetElapsedTime(began).TotalMicroseconds;
        }
        Array.Sort(times);
        return $"| {name} | {times[Looks / 2]:0} | {times[Looks * 99 / 100]:0} | {times[^1]:0} |";
    }

    /// <summary>This process itself has them open and mapped; it is one of those that are looked at.</summary>
    static string Memory(LinuxKernel kernel)
    {
        var files = new List<SafeFileHandle>();
        var maps = new List<nint>();
        try
        {
            var machine = new Machine("", "")
            {
                Nodes = [new("/dev/full", kernel.NodeAt(new("/dev/full"))!)],
                Modules = [new("nvidia", ModuleState.Loaded, RefCount: 1, [])],
            };
            _ = Holders.Find(machine, kernel);
            using var zero = File.OpenHandle("/dev/zero");
            // Every second page with another protection, so that the kernel does not join them.
            for (var i = 0; i < Mappings && Map(0, MappedLength, i % 2, 2, zero, 0) is > 0 and var at; i++)
                maps.Add(at);
            try
            {
                for (var i = 0; i < Descriptors; i++)
                    files.Add(File.OpenHandle("/dev/full"));
            }
            catch (IOException)
            {
                // As many as this machine allows a process, and a few for the search itself.
                for (var i = 0; i < 200; i++)
                {
                    files[^1].Dispose();
                    files.RemoveAt(files.Count - 1);
                }
            }
            _ = Holders.Find(machine, kernel);
            GC.Collect();
            var (held, allocated, clock) = (GC.GetTotalMemory(forceFullCollection: true), GC.GetTotalAllocatedBytes(precise: true), Stopwatch.StartNew());
            var found = Holders.Find(machine, kernel);
            clock.Stop();
            allocated = GC.GetTotalAllocatedBytes(precise: true) - allocated;
            held = GC.GetTotalMemory(forceFullCollection: true) - held;
            return $"A search that meets a process with {files.Count} descriptors of the device and {maps.Count} mappings took {clock.ElapsedMilliseconds} ms, "
                + $"kept {Math.Max(0, held) / 1024} KiB and went through {allocated / (1024 * 1024)} MiB of short-lived objects ({found.Users.Length} user found, {found.Unseen.Length} processes not looked at).";
        }
        finally
        {
            files.ForEach(f => f.Dispose());
            foreach (var map in maps)
            {
                if (Unmap(map, MappedLength) != 0)
                    Console.Error.WriteLine("munmap failed");
            }
        }
    }

    [DllImport("libc", EntryPoint = "mmap")]
    static extern nint Map(nint address, nint length, int protection, int flags, SafeFileHandle file, nint offset);

    [DllImport("libc", EntryPoint = "munmap")]
    static extern int Unmap(nint address, nint length);
}
