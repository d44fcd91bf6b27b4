using GpuHandoff.Lab.Vm;

namespace GpuHandoff.Lab;

/// <summary>The command line of the lab's program.</summary>
sealed record Asked(string Verb, IReadOnlyList<string> Words)
{
    public const string Usage = """
        usage: lab image                     build the guest's image, unless it is there; say where it is
               lab shell [options]           boot, with the serial console here
               lab run [options] COMMAND…    boot, run the command as root, print what it printed
        options: --gpus N   --usb   --stranger   --display   --vga   --ovmf
                 --append "KERNEL ARGUMENTS"   --file HOST=GUEST
        """;

    int Gpus { get; init; } = 1;

    bool Usb { get; init; }

    bool Stranger { get; init; }

    LabDisplay Display { get; init; }

    LabFirmware Firmware { get; init; }

    string Append { get; init; } = "";

    IReadOnlyList<LabFile> Files { get; init; } = [];

    public static Asked Parse(IReadOnlyList<string> args)
    {
        var asked = new Asked(args.Count > 0 ? args[0] : "", []);
        var at = 1;
        while (at < args.Count && args[at].StartsWith("--"))
        {
            var value = at + 1 < args.Count ? args[at + 1] : "";
            (asked, var taken) = args[at] switch
            {
                "--gpus" => (asked with { Gpus = int.TryParse(value, out var count) ? count : 1 }, 2),
                "--usb" => (asked with { Usb = true }, 1),
                "--stranger" => (asked with { Stranger = true }, 1),
                "--display" => (asked with { Display = LabDisplay.Bochs }, 1),
                "--vga" => (asked with { Display = LabDisplay.Vga }, 1),
                "--ovmf" => (asked with { Firmware = LabFirmware.Ovmf }, 1),
                "--append" => (asked with { Append = value }, 2),
                "--file" when value.Split('=') is [var host, var guest] => (asked with { Files = [.. asked.Files, LabFile.From(host, guest)] }, 2),
                _ => (asked with { Verb = "" }, 1),
            };
            at += taken;
        }
        return asked with { Words = [.. args.Skip(at)] };
    }

    public LabMachine Machine(string name) => new()
    {
        Name = name,
        Gpus = [.. Enumerable.Repeat(new LabGpu((Usb ? LabGpu.WithUsb : LabGpu.Standard).Functions, Stranger), Gpus)],
        Display = Display,
        Firmware = Firmware,
        KernelArguments = Append,
        Files = Files,
    };
}
