using System.Formats.Tar;

namespace GpuHandoff.Lab.Vm;

/// <summary>A file that the guest finds at <paramref name="GuestPath"/> when it is up.</summary>
public sealed record LabFile(string GuestPath, ReadOnlyMemory<byte> Content, bool MayRun = false)
{
    /// <summary>A file of the host, with its own permission to run.</summary>
    public static LabFile From(string hostPath, string guestPath) =>
        new(guestPath, File.ReadAllBytes(hostPath), File.GetUnixFileMode(hostPath).HasFlag(UnixFileMode.UserExecute));

    /// <summary>All files of a folder of the host.</summary>
    public static IEnumerable<LabFile> FromFolder(string hostFolder, string guestFolder) =>
        from path in Directory.EnumerateFiles(hostFolder, "*", SearchOption.AllDirectories)
        select From(path, $"{guestFolder.TrimEnd('/')}/{Path.GetRelativePath(hostFolder, path)}");

    /// <summary>A script; its shebang is its first line.</summary>
    public static LabFile Script(string guestPath, string text) => new(guestPath, System.Text.Encoding.UTF8.GetBytes(text), MayRun: true);

    /// <summary>Writes the files as a tar, which the guest reads from a bare disk (lab-files.service).</summary>
    internal static void WriteDisk(string path, IEnumerable<LabFile> files)
    {
        using var disk = File.Create(path);
        using (var tar = new TarWriter(disk, TarEntryFormat.Pax, leaveOpen: true))
        {
            foreach (var file in files)
            {
                tar.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, file.GuestPath.TrimStart('/'))
                {
                    DataStream = new MemoryStream(file.Content.ToArray()),
                    Mode = (UnixFileMode)(file.MayRun ? 0b111_101_101 : 0b110_100_100),
                });
            }
        }
        // Whole sectors, and not so small that QEMU takes the disk for broken.
        disk.SetLength((disk.Length + 0x10_0000) & ~0xf_ffffL);
    }
}
