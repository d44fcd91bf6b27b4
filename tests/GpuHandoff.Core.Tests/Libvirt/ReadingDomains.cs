using System.Diagnostics;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using FsCheck.Xunit;
using GpuHandoff.Libvirt;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Libvirt;

/// <summary>Domains as libvirt gives them to its hooks, and what is none.</summary>
public class ReadingDomains
{
    /// <summary>As libvirt 11.3 wrote it to a hook, shortened.</summary>
    public const string Win11 = """
        <domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
          <name>win11</name>
          <uuid>6f6c0f4e-9a4c-4b0c-9d51-5b7a8b0d3f11</uuid>
          <metadata>
            <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
              <devices><hostdev mode='subsystem' type='pci'><source><address bus='0x09'/></source></hostdev></devices>
            </libosinfo:libosinfo>
          </metadata>
          <memory unit='KiB'>16777216</memory>
          <devices>
            <emulator>/usr/bin/qemu-system-x86_64</emulator>
            <disk type='file' device='disk'>
              <source file='/var/lib/libvirt/images/win11 &amp; more.qcow2'/>
              <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>
            </disk>
            <interface type='hostdev' managed='yes'>
              <source><address type='pci' domain='0x0000' bus='0x41' slot='0x10' function='0x0'/></source>
            </interface>
            <hostdev mode='subsystem' type='pci' managed='yes'>
              <driver name='vfio'/>
              <source>
                <address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
              </source>
              <alias name='hostdev0'/>
              <rom file='/etc/vbios.rom'/>
              <address type='pci' domain='0x0000' bus='0x07' slot='0x00' function='0x0' multifunction='on'/>
            </hostdev>
            <hostdev mode='subsystem' type='pci' managed='no'>
              <source>
                <address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/>
              </source>
            </hostdev>
            <hostdev mode='subsystem' type='mdev' model='vfio-pci'>
              <source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source>
            </hostdev>
            <hostdev mode='subsystem' type='usb'>
              <source><address bus='3' device='5'/></source>
            </hostdev>
            <memballoon model='none'/>
          </devices>
          <qemu:commandline><qemu:arg value='-cpu'/></qemu:commandline>
        </domain>
        """;

    [Fact]
    public void Only_the_hosts_functions_are_read_from_a_whole_domain()
    {
        var domain = Domain.Parse(Win11);

        domain.Name.ShouldBe("win11");
        domain.Devices.ShouldBe([new(new(0, 1, 0, 0), IsManaged: true), new(new(0, 1, 0, 1), IsManaged: false)]);
    }

    [Theory]
    [InlineData("domain='0x0000' bus='0x05' slot='0x00' function='0x0'", "0000:05:00.0")]
    [InlineData("domain='0' bus='5' slot='0' function='0'", "0000:05:00.0")]
    [InlineData("bus='0x05'", "0000:05:00.0")]
    [InlineData("bus='065' slot=\"0X1F\" function='7'", "0000:35:1f.7")]
    [InlineData("domain='0x10000' bus='0xe1'", "10000:e1:00.0")]
    [InlineData("type='pci' function='1' slot='31' bus='255'", "0000:ff:1f.1")]
    public void An_address_is_read_as_libvirt_reads_it(string attributes, string function) =>
        Domain.Parse(With(attributes)).Devices.ShouldHaveSingleItem().Function.ToString().ShouldBe(function);

    [Theory]
    [InlineData("bus='0x100'", "bus is \"0x100\"")]
    [InlineData("slot='32'", "slot is \"32\"")]
    [InlineData("function='8'", "function is \"8\"")]
    [InlineData("function='08'", "function is \"08\"")]
    [InlineData("bus='-1'", "bus is \"-1\"")]
    [InlineData("bus=''", "bus is \"\"")]
    [InlineData("bus='0x'", "bus is \"0x\"")]
    [InlineData("bus='five'", "bus is \"five\"")]
    [InlineData("domain='99999999999999'", "domain is")]
    public void A_place_that_no_bus_has_is_an_error_and_not_another_place(string attributes, string reason) =>
        Should.Throw<NoDomain>(() => Domain.Parse(With(attributes))).Message.ShouldContain(reason);

    [Theory]
    [InlineData("<name>a &lt;b&gt; &#38; &#x63; &quot;d&apos;</name>", "a <b> & c \"d'")]
    [InlineData("<name>n<!-- no part of it -->ame</name>", "name")]
    [InlineData("<name><![CDATA[<&]]></name>", "<&")]
    [InlineData("<name>тест-😀</name>", "тест-😀")]
    [InlineData("<name/>", "")]
    [InlineData("", "")]
    public void A_name_may_be_written_in_every_way_of_XML(string element, string name) =>
        Domain.Parse($"\ufeff<?xml version='1.0'?>\n<!-- made by hand -->\n<domain>{element}</domain>\n<!-- end -->\n").Name.ShouldBe(name);

    [Theory]
    [InlineData("", "nothing to read")]
    [InlineData(" \n", "nothing to read")]
    [InlineData("win11", "outside of the outermost tag")]
    [InlineData("<network><name>default</name></network>", "it is a <network>")]
    [InlineData("<domain>", "ends within <domain>")]
    [InlineData("<domain><name>a</domain>", "</domain> closes nothing")]
    [InlineData("<domain></domain></domain>", "closes nothing")]
    [InlineData("<domain/><domain/>", "second outermost")]
    [InlineData("<domain/>more", "outside")]
    [InlineData("<!DOCTYPE domain [<!ENTITY a 'aaaaaaaa'>]><domain>&a;</domain>", "document type")]
    [InlineData("<domain><name>&a;</name></domain>", "&a; means nothing")]
    [InlineData("<domain><name>&#x110000;</name></domain>", "means nothing")]
    [InlineData("<domain><name>a & b</name></domain>", "begins nothing")]
    [InlineData("<domain id='1' id='2'/>", "id is there twice")]
    [InlineData("<domain id=1/>", "no value in quotes")]
    [InlineData("<domain id='1'type='kvm'/>", "no blank")]
    [InlineData("<domain id='<'/>", "has a <")]
    [InlineData("<domain id='1", "does not end")]
    [InlineData("<domain id", "no =")]
    [InlineData("<domain", "ends within")]
    [InlineData("<domain /", "no >")]
    [InlineData("< domain/>", "no name")]
    [InlineData("<1domain/>", "no name")]
    [InlineData("<domain><!-- </domain>", "no -->")]
    [InlineData("<domain><![CDATA[</domain>", "no ]]>")]
    [InlineData("\n\n<domain>\n  <a>\n  </b>\n</domain>", "line 5")]
    public void What_is_no_domain_is_an_error_that_tells_why(string xml, string reason) =>
        Should.Throw<NoDomain>(() => Domain.Parse(xml)).Message.ShouldContain(reason);

    public static TheoryData<string, string> Long => new()
    {
        { "blanks", new string(' ', Domain.Longest + 1) },
        { "words", new string('x', Domain.Longest) },
        { "tags without an end", Repeated("<a>") },
        { "tags that are empty", $"<domain>{Repeated("<a/>")}" },
        { "attributes", $"<domain {Repeated("a='' ")}" },
        { "other attributes", $"<domain {string.Concat(Enumerable.Range(0, 400_000).Select(i => $"a{i}='' "))}" },
        { "quotes", $"<domain {Repeated("a='")}" },
        { "references", $"<domain><name>{Repeated("&#38;")}" },
        { "half references", $"<domain><name>{Repeated("&")}" },
        { "comments", $"<domain>{Repeated("<!---->")}" },
        { "half comments", $"<domain>{Repeated("<!--")}" },
        { "lines", $"<domain>{Repeated("\n")}</a>" },
        { "devices", $"<domain><devices>{Repeated("<hostdev type='pci'><source><address bus='x'/>")}" },
    };

    [Theory]
    [MemberData(nameof(Long))]
    public void Five_megabytes_of_garbage_are_an_error_and_not_a_hang(string what, string xml)
    {
        var watch = Stopwatch.StartNew();
        Should.Throw<NoDomain>(() => Domain.Parse(xml), what);
        watch.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(5), what);
    }

    [Property(MaxTest = 500)]
    public Property What_was_written_is_read_again() => Prop.ForAll(
        (from name in Gen.Elements('a', '<', '&', '"', '\'', ' ', ']', 'ß', '\t').ListOf().Select(signs => string.Concat(signs))
         from devices in (
             from domain in Gen.Choose(0, 0x1ffff)
             from bus in Gen.Choose(0, 255)
             from slot in Gen.Choose(0, 31)
             from function in Gen.Choose(0, 7)
             from managed in Gen.Elements(true, false)
             from written in Gen.Choose(0, 2)
             select (Device: new HostDevice(new(domain, bus, slot, function), managed), Written: written)).ListOf()
         select (name, devices)).ToArbitrary(),
        sample =>
        {
            var read = Domain.Parse(Write(sample.name, sample.devices));
            read.Name.ShouldBe(sample.name);
            read.Devices.ShouldBe(sample.devices.Select(d => d.Device));
        });

    [Fact]
    public void A_card_is_one_whose_display_function_is_asked_for()
    {
        var cards = Surveyor.Cards(Hosts.TwoIdenticalGpus());

        Domain.Parse(Win11).Gpus(cards).ShouldBe([new(0, 1, 0, 0)]);
        Domain.Parse(With("bus='2'")).Gpus(cards).ShouldBe([new(0, 2, 0, 0)]);
        // Its sound alone, a virtual function in its slot, and what is no card at all.
        Domain.Parse(With("bus='1' function='1'")).Gpus(cards).ShouldBeEmpty();
        Domain.Parse(With("bus='1' function='4'")).Gpus(cards).ShouldBeEmpty();
        Domain.Parse(With("bus='0x41'")).Gpus(cards).ShouldBeEmpty();
    }

    [Theory]
    [InlineData(Moment.Prepare, "win11", "prepare", "begin", "-")]
    [InlineData(Moment.Release, "win11", "release", "end", "-")]
    [InlineData(Moment.Release, "win11", "release", "end", "shutdown")]
    [InlineData(Moment.Runs, "--hand", "started", "begin", "-")]
    [InlineData(Moment.Runs, "status", "reconnect", "begin", "-")]
    [InlineData(Moment.Other, "a b", "start", "begin", "-")]
    [InlineData(Moment.Other, "a b", "stopped", "end", "-")]
    [InlineData(Moment.Other, "a b", "migrate", "begin", "-")]
    [InlineData(Moment.Other, "a b", "restore", "begin", "-")]
    [InlineData(Moment.Other, "a b", "attach", "begin", "-")]
    public void libvirts_words_are_known_whatever_the_domain_is_called(Moment moment, params string[] words)
    {
        var call = HookCall.Of(words).ShouldNotBeNull();
        (call.Moment, call.Domain).ShouldBe((moment, words[0]));
    }

    [Theory]
    [InlineData]
    [InlineData("status")]
    [InlineData("101", "pre-start")]
    [InlineData("plan", "to_vfio", "--gpu", "0")]
    [InlineData("--hand", "guard", "0")]
    [InlineData("win11", "prepare", "end", "-")]
    [InlineData("win11", "release", "begin", "-")]
    [InlineData("win11", "prepare", "begin")]
    [InlineData("win11", "prepare", "begin", "-", "-")]
    [InlineData("default", "plugged", "begin", "-")]
    public void Other_command_lines_are_not_libvirts(params string[] words) => HookCall.Of(words).ShouldBeNull();

    /// <summary>A domain with one PCI device.</summary>
    public static string With(string address, string name = "vm", bool managed = true) => $"""
        <domain type='qemu'>
          <name>{name}</name>
          <devices><hostdev mode='subsystem' type='pci' managed='{(managed ? "yes" : "no")}'><source><address {address}/></source></hostdev></devices>
        </domain>
        """;

    static string Repeated(string part) => new StringBuilder(part.Length * (Domain.Longest / part.Length)).Insert(0, part, (Domain.Longest / part.Length) - 30).ToString();

    static string Write(string name, IEnumerable<(HostDevice Device, int Written)> devices)
    {
        var text = new StringBuilder("<domain type='kvm'>\n  <name>");
        text.Append(Escaped(name)).Append("</name>\n  <devices>\n");
        foreach (var (device, written) in devices)
        {
            var address = device.Function;
            text.Append(written switch
            {
                0 => $"<hostdev mode='subsystem' type='pci' managed='{(device.IsManaged ? "yes" : "no")}'>\n<source>\n<address domain='0x{address.Domain:x4}' bus='0x{address.Bus:x2}' slot='0x{address.Device:x2}' function='0x{address.Function:x}'/>\n</source>\n</hostdev>\n",
                1 => $"<hostdev type = \"pci\"\n managed='{(device.IsManaged ? "yes" : "no")}' ><source ><address function='{address.Function}' slot='{address.Device}' bus='{address.Bus}' domain='{address.Domain}'></address></source ></hostdev >",
                _ => $"<!-- -- --><hostdev mode='subsystem' type='pci'{(device.IsManaged ? " managed='yes'" : "")}><driver name='vfio'/><source>\n<address domain='{address.Domain}' bus='{address.Bus}' slot='{address.Device}' function='{address.Function}' x='&lt;&#10;'/></source><address bus='0x3'/></hostdev>",
            });
        }
        return text.Append("  </devices>\n</domain>\n").ToString();
    }

    static string Escaped(string text) => text.Replace("&", "&amp;").Replace("<", "&lt;").Replace("\"", "&quot;");
}
