using FsCheck;
using FsCheck.Fluent;
using FsCheck.Xunit;
using GpuHandoff.Machines;
using GpuHandoff.Proxmox;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>Each format of Proxmox's: whatever may be written is read back, among whatever else may stand beside it.</summary>
public class RoundTrips
{
    static readonly Gen<string> _address =
        from domain in Gen.Elements("0000:", "0001:", "10000:")
        from bus in Gen.Choose(0, 255)
        from device in Gen.Choose(0, 31)
        select $"{domain}{bus:x2}:{device:x2}";

    static readonly Gen<string> _function = from slot in _address from function in Gen.Choose(0, 7) select $"{slot}.{function}";

    static readonly Gen<string> _id = Gen.OneOf(
        _address, _function, _address.Where(a => a.StartsWith("0000:", StringComparison.Ordinal)).Select(a => a["0000:".Length..]));

    static readonly Gen<string> _name =
        from first in Gen.Elements("g", "Z")
        from rest in Gen.Elements("pu", "-", "_9", "pool-a").NonEmptyListOf()
        select first + string.Concat(rest);

    static readonly Gen<PciId> _ids = from vendor in Gen.Choose(0, 0xffff) from device in Gen.Choose(0, 0xffff) select new PciId(vendor, device);

    static readonly Gen<Alternative> _alternative =
        from node in Gen.Elements("pve1", "pve2")
        from path in Gen.OneOf(_address, _function).NonEmptyListOf()
        from id in _ids
        from grouped in Gen.Elements(true, false)
        from number in Gen.Choose(0, 300)
        from whole in Gen.Elements(true, false)
        from subsystem in _ids
        select new Alternative(node, [.. path.Select(p => new HostId(p))], id, grouped ? number : null, whole ? subsystem : null);

    static Gen<string> Written(Alternative alternative) => Gen.Shuffle(new[]
    {
        $"node={alternative.Node}", $"path={string.Join(';', alternative.Path)}", $"id={Hex(alternative.Id)}",
        alternative.Group is { } group ? $"iommugroup={group}" : "", alternative.Subsystem is { } subsystem ? $"subsystem-id={Hex(subsystem)}" : "",
    }.Where(p => p != "").ToArray()).Select(parts => $"\tmap {string.Join(',', parts)}");

    static string Hex(PciId id) => $"{id.Vendor:x4}:{id.Device:x4}";

    [Property(MaxTest = 300)]
    public Property A_device_of_a_VM_is_read_as_it_was_written() => Prop.ForAll(
        (from index in Gen.Choose(0, HostPci.Most - 1)
         from host in _id.NonEmptyListOf()
         from mapping in _name
         from mapped in Gen.Elements(true, false)
         from keep in Gen.Elements(true, false)
         from named in Gen.Elements("", "host=")
         from extras in Gen.SubListOf("pcie=1", "x-vga=on", "rombar=0", "romfile=vbios.rom", "vendor-id=0x10de")
         from parts in Gen.Shuffle(extras.Append(mapped ? $"mapping={mapping}" : $"{named}{string.Join(';', host)}").Concat(keep ? ["driver=keep"] : []).ToArray())
         select (index, host: mapped ? [] : host.ToArray(), mapping: mapped ? mapping : null, keep, text: string.Join(',', parts))).ToArbitrary(),
        written =>
        {
            var config = VmConfig.Parse($"cores: 4\nhostpci{written.index}: {written.text}\n[snap]\nhostpci9: 01:00\n");

            config.Dropped.ShouldBeEmpty();
            var read = config.Devices.ShouldHaveSingleItem();
            read.Key().ShouldBe($"hostpci{written.index}");
            read.Host.Select(h => h.Text).ShouldBe(written.host);
            read.Mapping.ShouldBe(written.mapping);
            read.Driver.ShouldBe(written.keep ? HostDriver.Keep : HostDriver.Vfio);
            read.IsMediated.ShouldBeFalse();
            read.WhyNoStart().ShouldBeNull();
        });

    [Property(MaxTest = 300)]
    public Property A_mapping_is_read_as_it_was_written() => Prop.ForAll(
        (from name in _name
         from other in _name.Where(n => n != name)
         from mediated in Gen.Elements(true, false)
         from alternatives in _alternative.ListOf()
         from strangers in _alternative.NonEmptyListOf()
         from noise in Gen.Elements("# a remark\n", "\n\n", "no name!\n\tmap id=10de:2684,node=pve1,path=0000:05:00\n\n", "")
         from lines in Lines(alternatives)
         from others in Lines(strangers)
         from first in Gen.Elements(true, false)
         let ours = $"{name}\n\tdescription a, b=c\n{lines}\tmdev {(mediated ? 1 : 0)}\n\n"
         let theirs = $"{other}\n{others}\n"
         select (name, mediated, alternatives, text: noise + (first ? ours + theirs : theirs + ours))).ToArbitrary(),
        written =>
        {
            var read = PciMappings.Find(written.text, written.name).ShouldNotBeNull(written.text);

            read.Dropped.ShouldBeEmpty();
            read.IsMediated.ShouldBe(written.mediated);
            read.Alternatives.Select(Told).ShouldBe(written.alternatives.Select(Told));
        });

    static Gen<string> Lines(IList<Alternative> alternatives) =>
        alternatives.Select(Written).Aggregate(Gen.Constant(""), (lines, one) => from before in lines from line in one select $"{before}{line}\n");

    static string Told(Alternative a) => $"{a.Node} {string.Join(';', a.Path)} {a.Id} {a.Group} {a.Subsystem}";

    [Property(MaxTest = 300)]
    public Property Reservations_are_read_as_they_were_written() => Prop.ForAll(
        (from id in _function
         from vm in Gen.Choose(ProxmoxNode.LeastId, ProxmoxNode.MostId)
         from runs in Gen.Elements(true, false)
         from number in Gen.Choose(1, int.MaxValue)
         select new Reservation(new(id), vm, runs ? number : null, runs ? null : number)).ListOf().ToArbitrary(),
        written =>
        {
            var text = string.Concat(written.Select(r => $"{r.Id} {r.Vm} {(r.Pid is { } pid ? $"pid:{pid}" : $"time:{r.Until}")}\n"));

            Reservations.Parse(text).ShouldBe(written.GroupBy(r => r.Id).Select(g => g.Last()).OrderBy(r => r.Id.Text, StringComparer.Ordinal));
        });

    [Property(MaxTest = 300)]
    public Property The_storage_local_is_read_as_it_was_written() => Prop.ForAll(
        (from content in Gen.SubListOf("iso", "snippets", "backup", "vztmpl")
         from folder in Gen.Elements(null, "hooks", "hooks/qemu", "a-b")
         from others in Gen.SubListOf("iso=template/i", "backup=dump")
         from beside in Gen.SubListOf(
             "dir: local2\n\tcontent snippets\n\tcontent-dirs snippets=no\n", "nfs: nas\n\tpath /mnt/pve/nas\n\tcontent snippets,images\n", "# dir: local\n#\tcontent snippets\n")
         from last in Gen.Elements(true, false)
         let dirs = others.Concat(folder is null ? [] : [$"snippets={folder}"]).ToList()
         let ours = $"dir: local\n\tpath /var/lib/vz\n\tcontent {string.Join(',', content)}\n{(dirs.Count == 0 ? "" : $"\tcontent-dirs {string.Join(',', dirs)}\n")}\n"
         let theirs = string.Join('\n', beside)
         select (offers: content.Contains("snippets"), folder: folder ?? "snippets", text: last ? $"{theirs}\n{ours}" : $"{ours}\n{theirs}")).ToArbitrary(),
        written =>
        {
            var read = LocalStorage.Parse(written.text);

            read.Snippets.Text.ShouldBe($"/var/lib/vz/{written.folder}", written.text);
            read.OffersSnippets.ShouldBe(written.offers, written.text);
        });

    /// <summary>Lines as they are, cut, doubled and mixed: a parser answers, and what it cannot read it says.</summary>
    [Property(MaxTest = 500)]
    public void No_text_at_all_makes_a_parser_fall(NonNull<string> garbage, int[] picks)
    {
        string[] parts =
        [
            "gpu\n", "\tmap id=10de:2684,node=pve1,path=0000:05:00,iommugroup=", "99999999999999999999", "\tmdev maybe\n", "dir: local\n", "\tcontent-dirs snippets=", "/../",
            "hostpci0: ", "0000:05:00.0 101 pid:", "mapping=", ";", ",", "=", ":", "\n\n", "[", "]", "\0", "\t", "\u2028", garbage.Get,
        ];
        var text = string.Concat(picks.Select(p => parts[(p & int.MaxValue) % parts.Length]));

        _ = VmConfig.Parse(text);
        _ = VmLines.Parse(text);
        _ = PciMappings.Find(text, "gpu");
        _ = Reservations.Parse(text);
        LocalStorage.Parse(text).Snippets.Text.ShouldStartWith("/var/lib/vz/");
        try
        {
            HostPci.Parse(0, text).Host.ShouldAllBe(id => id.Text.Length > 0);
        }
        catch (NotProxmox trouble)
        {
            trouble.Message.ShouldNotBeEmpty();
        }
    }
}
